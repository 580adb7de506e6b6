"""Layers that work on squares of a map, each by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn

from .transformer import SelfAttention


def pad_to_multiple(x: mx.array, size: int) -> mx.array:
    """(B, H, W, C) with zeros below and to the right: H and W multiples of ``size``."""
    bottom, right = (-n % size for n in x.shape[1:3])
    return mx.pad(x, [(0, 0), (0, bottom), (0, right), (0, 0)]) if bottom or right else x


def to_batch(x: mx.array, parts: int, *, axis: int) -> mx.array:
    """Parts of ``x`` along ``axis``, one after the other in the batch: no axis moves."""
    return mx.concatenate([*mx.split(x, parts, axis=axis)], axis=0) if parts > 1 else x


def from_batch(x: mx.array, parts: int, *, axis: int) -> mx.array:
    """The way back from ``to_batch``."""
    return mx.concatenate([*mx.split(x, parts, axis=0)], axis=axis) if parts > 1 else x


def to_windows(x: mx.array, size: int) -> mx.array:
    """(B, H, W, C) to (windows * B, size, size, C), H and W multiples of ``size``."""
    rows = to_batch(x, x.shape[1] // size, axis=1)
    return to_batch(rows, x.shape[2] // size, axis=2)


def from_windows(x: mx.array, height: int, width: int) -> mx.array:
    """The way back from ``to_windows``: (B, height, width, C)."""
    rows = from_batch(x, width // x.shape[2], axis=2)
    return from_batch(rows, height // x.shape[1], axis=1)


def in_windows(m: Callable[[mx.array], mx.array], x: mx.array, size: int) -> mx.array:
    """(B, H, W, C) map to the same shape: ``m`` of (windows * B, size, size, C) and back.

    The map is padded to a multiple of ``size``.
    """
    _, H, W, _ = x.shape
    padded = pad_to_multiple(x, size)
    y = from_windows(m(to_windows(padded, size)), *padded.shape[1:3])
    return y if padded is x else y[:, :H, :W]


class Windowed(nn.Module):
    """``m`` of each window of ``size * size`` positions; a map is padded to a multiple."""

    last = "m"

    def __init__(self, m: nn.Module, size: int) -> None:
        super().__init__()
        self.m = m
        self.size = size

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return in_windows(lambda w: self.m(w.flatten(1, 2)).reshape(w.shape), x, self.size)


class WindowAttention(SelfAttention):
    """Attention of each position to those of its window, padding included."""

    def __init__(self, dim: int, heads: int, size: int) -> None:
        super().__init__(dim, heads)
        self.size = size

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """(B, H, W, C) map to the same shape; ``mask`` is added to the scores of a window."""
        return in_windows(partial(super().__call__, mask=mask), x, self.size)
