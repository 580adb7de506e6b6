"""Attention of every position of a map to a smaller map.

Paper: https://arxiv.org/abs/2102.12122 (PVT)
"""

from __future__ import annotations

import copy
from typing import Self

import mlx.core as mx
import mlx.nn as nn

from ..cpu import kernels
from .layers import Conv2d, scale_output


class ReducedAttention(nn.Module):
    """Attention to a map that a strided convolution made smaller."""

    last = "proj"

    def __init__(self, dim: int, heads: int, stride: int) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.scale = self.head_dim**-0.5
        self.q: nn.Module = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if stride > 1:
            self.sr = Conv2d(dim, dim, stride, stride)
            self.norm = nn.LayerNorm(dim)

    def smaller(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the one that keys and values are of."""
        return self.norm(self.sr(x)) if "sr" in self else x

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        kv = self._heads(self.kv(self.smaller(x)))
        q, k, v = self._heads(self.q(x)), *mx.split(kv, 2, axis=1)
        attn = kernels.softmax((q if self.scale == 1 else q * self.scale) @ k.swapaxes(2, 3))
        return self.proj((attn @ v).swapaxes(1, 2).reshape(x.shape))

    def _heads(self, x: mx.array) -> mx.array:
        """(B, H, W, heads * C) to (B, heads, N, C), of any number of heads."""
        heads = x.shape[3] // self.head_dim
        return x.reshape(x.shape[0], -1, heads, self.head_dim).swapaxes(1, 2)

    def fuse(self) -> Self:
        """The same with the scale of q in its layer."""
        fused = copy.copy(self)
        fused.q, fused.scale = scale_output(self.q, mx.array(self.scale)), 1.0
        return fused
