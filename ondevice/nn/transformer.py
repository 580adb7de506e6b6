"""The transformer block of vision transformers and CLIP's text encoders."""

from __future__ import annotations

import copy
from typing import Self

import mlx.core as mx
import mlx.nn as nn

from ..cpu import kernels
from .drop_path import DropPath
from .layers import GELU, scale_output

FORBIDDEN = -1e4  # added to a score: nothing after the softmax, and it fits float16


class JointAttention(nn.Module):
    """Abstract: multi-head attention whose queries, keys and values are one layer's."""

    first, last = ("qkv",), "proj"
    scaled = 0  # of these three, the part that ``scale`` is of

    def __init__(self, dim: int, heads: int, bias: bool = True, qkv_bias: bool = True) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.scale = self.head_dim**-0.5
        self.qkv: nn.Module = nn.Linear(dim, 3 * dim, bias and qkv_bias)
        self.proj = nn.Linear(dim, dim, bias)

    def heads(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """(B, ..., dim) to queries, keys and values, each (B, heads, N, head_dim)."""
        heads = 3 * x.shape[-1] // self.head_dim
        qkv = self.qkv(x).reshape(x.shape[0], -1, heads, self.head_dim)
        q, k, v = mx.split(qkv.swapaxes(1, 2), 3, axis=1)
        return q, k, v

    def fuse(self) -> Self:
        """The same with the scale in qkv."""
        if self.scale == 1:
            return self
        fused, dim = copy.copy(self), self.qkv.weight.shape[1]
        scale = mx.where(mx.arange(3 * dim) // dim == self.scaled, self.scale, 1.0)
        fused.qkv = scale_output(self.qkv, scale.astype(self.qkv.weight.dtype))
        fused.scale = 1.0
        return fused


class SelfAttention(JointAttention):
    """Multi-head attention of a sequence, or of the positions of a map, to itself."""

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """(B, ..., dim) tokens or map to the same shape; ``mask`` (N, N) is added to scores."""
        q, k, v = self.heads(x)
        q = q if self.scale == 1 else q * self.scale
        scores = q @ k.swapaxes(2, 3)
        scores = scores if mask is None else scores + mask.astype(scores.dtype)
        attn = kernels.softmax(scores, precise=True)
        return self.proj((attn @ v).swapaxes(1, 2).reshape(x.shape))


class Mlp(nn.Module):
    """Two linear layers with an activation between, a GELU if nothing else is said."""

    last = "fc2"

    def __init__(self, dim: int, hidden: int, act: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = GELU() if act is None else act
        self.fc2 = nn.Linear(hidden, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(..., dim) to (..., dim)."""
        return self.fc2(self.act(self.fc1(x)))


class Block(DropPath):
    """Attention, then an MLP, each with a norm before and a residual around it."""

    def __init__(
        self, dim: int, heads: int, eps: float, ratio: int = 4, act: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, ratio * dim, act)

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """(B, N, dim) to (B, N, dim); ``mask`` (N, N) is added to the scores of attention."""
        x = x + self.dropped(self.attn(self.norm1(x), mask))
        return x + self.dropped(self.mlp(self.norm2(x)))


def causal_mask(length: int) -> mx.array:
    """(length, length), added to scores: a token attends to itself and those before it."""
    position = mx.arange(length)
    return mx.where(position[:, None] < position, FORBIDDEN, 0.0)
