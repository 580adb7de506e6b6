"""Attention with a bias for each distance between two positions, and in windows.

Paper: https://arxiv.org/abs/2104.01136 (LeViT)
"""

from __future__ import annotations

import copy
from typing import Self

import mlx.core as mx
import mlx.nn as nn

from ..cpu import kernels
from .layers import scale_output


def distances(height: int, width: int, stride: int = 1) -> mx.array:
    """(M, N): where a table by distance in y and x has that of each query from each key.

    Keys are the N = height * width positions of a map, row by row, queries every
    ``stride``-th of them in both directions.
    """
    y, x = (mx.abs(mx.arange(0, n, stride)[:, None] - mx.arange(n)) for n in (height, width))
    index = y[:, None, :, None] * width + x[None, :, None, :]
    return index.reshape(-1, height * width)


class TableBias(nn.Module):
    """Abstract: numbers that are learned in a ``table``, as attention's scores need them."""

    def look_up(self) -> mx.array:
        """(heads, M, N), of M queries and N keys."""
        raise NotImplementedError

    def __call__(self) -> mx.array:
        """(heads, M, N), of M queries and N keys."""
        return self.looked_up if "looked_up" in self else self.look_up()

    def fuse(self) -> Self:
        """The same with the table looked up."""
        if "looked_up" in self:
            return self
        fused = copy.copy(self)
        fused.looked_up = self.look_up()
        del fused.table
        return fused


class DistanceBias(TableBias):
    """One learned number a head for each distance in y and x, added to attention's scores."""

    def __init__(self, heads: int, height: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.size = (height, width, stride)
        self.table = mx.zeros((heads, height * width))

    def look_up(self) -> mx.array:
        """(heads, M, N), of M queries and N keys."""
        return self.table[:, distances(*self.size)]


class OffsetBias(TableBias):
    """One learned number a head for each offset in y and x between positions of a window."""

    def __init__(self, heads: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.table = mx.zeros(((2 * side - 1) ** 2, heads))

    def look_up(self) -> mx.array:
        """(heads, N, N), of queries and keys, row by row."""
        place = mx.arange(self.side)
        offset = place[:, None] - place + self.side - 1
        index = offset[:, None, :, None] * (2 * self.side - 1) + offset[None, :, None, :]
        return self.table[index.reshape(self.side**2, -1)].transpose(2, 0, 1)


class BiasedAttention(nn.Module):
    """Multi-head attention whose values may be wider than its keys, with a distance bias."""

    last = "proj"

    def __init__(self, dim: int, heads: int, key_dim: int, value_dim: int, side: int) -> None:
        super().__init__()
        self.splits = [key_dim, 2 * key_dim]
        self.heads = heads
        self.scale = key_dim**-0.5
        self.qkv: nn.Module = nn.Linear(dim, heads * (2 * key_dim + value_dim))
        self.proj = nn.Linear(heads * value_dim, dim)
        self.bias = DistanceBias(heads, side, side)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, N, dim) to the same shape, of a map or window of N = side * side positions."""
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, self.heads, -1).swapaxes(1, 2)
        q, k, v = mx.split(qkv, self.splits, axis=-1)
        q = q if self.scale == 1 else q * self.scale
        attn = kernels.softmax(q @ k.swapaxes(2, 3) + self.bias())
        return self.proj((attn @ v).swapaxes(1, 2).reshape(B, N, -1))

    def fuse(self) -> BiasedAttention:
        """The scale of q goes into qkv."""
        fused = copy.copy(self)
        width = self.qkv.weight.shape[0] // self.heads
        is_q = mx.arange(self.qkv.weight.shape[0]) % width < self.splits[0]
        scale = mx.where(is_q, self.scale, 1.0).astype(self.qkv.weight.dtype)
        fused.qkv, fused.scale = scale_output(self.qkv, scale), 1.0
        return fused
