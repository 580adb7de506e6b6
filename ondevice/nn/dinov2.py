"""DINOv2's vision transformer as a backbone: tokens of several blocks.

Paper: https://arxiv.org/abs/2304.07193
Code: https://github.com/facebookresearch/dinov2 (Apache-2.0); names follow transformers
"""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn

from .attention import Attention, scaled
from .layers import Conv2d
from .resize import bicubic
from .transformer import Mlp

# What transformers called the layers of attention before its version 5, as files still do.
RENAMES = (
    (r"\.attention\.attention\.(q|k|v)(uery|ey|alue)\.", r".attention.\1_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
)


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lambda1 = mx.ones(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(..., C) to the same shape."""
        return x * self.lambda1


class Block(nn.Module):
    """Attention, then an MLP, each with a norm before, factors behind, a residual around."""

    def __init__(self, dim: int, heads: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attention = Attention(dim, heads)
        self.layer_scale1: nn.Module = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.layer_scale2: nn.Module = LayerScale(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, N, dim) to the same shape."""
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))

    def fuse(self) -> Block:
        """The factors go into the last layers of attention and MLP."""
        if isinstance(self.layer_scale1, nn.Identity):
            return self
        fused = copy.copy(self)
        fused.attention, fused.mlp = copy.copy(self.attention), copy.copy(self.mlp)
        fused.attention.o_proj = scaled(self.attention.o_proj, self.layer_scale1.lambda1)
        fused.mlp.fc2 = scaled(self.mlp.fc2, self.layer_scale2.lambda1)
        fused.layer_scale1 = fused.layer_scale2 = nn.Identity()
        return fused


class Embeddings(nn.Module):
    """Patches as tokens behind one that belongs to none, with positions for any size."""

    def __init__(self, dim: int, patch: int, side: int) -> None:
        """``side``: of the table of positions, in patches."""
        super().__init__()
        self.side, self.patch = side, patch
        self.cls_token = mx.zeros((1, 1, dim))
        self.position_embeddings = mx.zeros((1, side * side + 1, dim))
        self.patch_embeddings = {"projection": Conv2d(3, dim, patch, patch)}

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, 1 + patches, dim)."""
        x = self.patch_embeddings["projection"](x)
        B, H, W, C = x.shape
        first, table = mx.split(self.position_embeddings, [1], axis=1)
        if self.side != H or self.side != W:
            table = bicubic(table.reshape(self.side, self.side, C), (H, W)).reshape(1, -1, C)
        x = x.reshape(B, H * W, C) + table
        token = mx.broadcast_to(self.cls_token + first, (B, 1, C))
        return mx.concatenate([token, x], axis=1)


class Backbone(nn.Module):
    """The tokens behind the blocks ``out``, counted from 1, each with the last norm."""

    def __init__(
        self, dim: int, depth: int, heads: int, out: tuple[int, ...], patch: int, side: int
    ) -> None:
        super().__init__()
        self.out = out
        self.embeddings = Embeddings(dim, patch, side)
        self.encoder = {"layer": [Block(dim, heads) for _ in range(depth)]}
        self.layernorm = nn.LayerNorm(dim, eps=1e-6)

    def __call__(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to one NHWC map of the patches for each of ``out``."""
        B, H, W, _ = x.shape
        patch = self.embeddings.patch
        x, found = self.embeddings(x), []
        for number, block in enumerate(self.encoder["layer"], start=1):
            x = block(x)
            if number in self.out:
                y = self.layernorm(x)[:, 1:]
                found.append(y.reshape(B, H // patch, W // patch, -1))
        return found
