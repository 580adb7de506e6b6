"""Layers that work on squares of a map, each by itself."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


def pad_to_multiple(x: mx.array, size: int) -> mx.array:
    """(B, H, W, C) with zeros below and to the right: H and W multiples of ``size``."""
    bottom, right = (-n % size for n in x.shape[1:3])
    return mx.pad(x, [(0, 0), (0, bottom), (0, right), (0, 0)]) if bottom or right else x


def to_windows(x: mx.array, size: int) -> mx.array:
    """(B, H, W, C) to (B * windows, size * size, C), H and W multiples of ``size``."""
    B, H, W, C = x.shape
    if size != H or size != W:
        x = x.reshape(B * H // size, size, W // size, size, C).swapaxes(1, 2)
    return x.reshape(-1, size * size, C)


def from_windows(x: mx.array, size: int, height: int, width: int) -> mx.array:
    """The way back from ``to_windows``: (B, height, width, C)."""
    C = x.shape[-1]
    if height != size or width != size:
        x = x.reshape(-1, width // size, size, size, C).swapaxes(1, 2)
    return x.reshape(-1, height, width, C)


class Windowed(nn.Module):
    """``m`` of each window of ``size * size`` positions; a map is padded to a multiple."""

    last = "m"

    def __init__(self, m: nn.Module, size: int) -> None:
        super().__init__()
        self.m = m
        self.size = size

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        _, H, W, _ = x.shape
        padded = pad_to_multiple(x, self.size)
        y = self.m(to_windows(padded, self.size))
        y = from_windows(y, self.size, *padded.shape[1:3])
        return y if padded is x else y[:, :H, :W]
