"""Multi-head attention with a layer of its own for each of queries, keys and values."""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn

from ..cpu import kernels


class Attention(nn.Module):
    """Of a sequence to itself, or to another one; keys may carry positions that values lack."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.scale = self.head_dim**-0.5
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)

    def __call__(
        self, x: mx.array, keys: mx.array | None = None, values: mx.array | None = None
    ) -> mx.array:
        """(B, N, dim) to the same; ``keys`` and ``values`` (B, M, dim) are those of ``x`` if
        none are given, and values the keys."""
        keys = x if keys is None else keys
        values = keys if values is None else values
        q = self._heads(self.q_proj(x))
        q = q if self.scale == 1 else q * self.scale
        k, v = self._heads(self.k_proj(keys)), self._heads(self.v_proj(values))
        attn = kernels.softmax(q @ k.swapaxes(2, 3), precise=True)
        return self.o_proj((attn @ v).swapaxes(1, 2).reshape(x.shape))

    def _heads(self, x: mx.array) -> mx.array:
        """(B, N, dim) to (B, heads, N, head_dim)."""
        B, N, _ = x.shape
        return x.reshape(B, N, -1, self.head_dim).swapaxes(1, 2)

    def fuse(self) -> Attention:
        """The scale of the queries goes into their layer."""
        if self.scale == 1:
            return self
        fused = copy.copy(self)
        fused.q_proj, fused.scale = scaled(self.q_proj, self.scale), 1.0
        return fused


def scaled(linear: nn.Linear, scale: mx.array | float) -> nn.Linear:
    """One linear layer that computes ``linear(x) * scale``; ``scale`` is (out,) or a number."""
    fused = copy.copy(linear)
    fused.weight = linear.weight * mx.reshape(mx.array(scale, linear.weight.dtype), (-1, 1))
    if "bias" in linear:
        fused.bias = linear.bias * scale
    return fused
