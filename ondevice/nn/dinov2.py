"""DINOv2's vision transformer as a backbone: tokens of several blocks.

Paper: https://arxiv.org/abs/2304.07193
Code: https://github.com/facebookresearch/dinov2 (Apache-2.0); names follow transformers
"""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn

from .layers import Conv2d
from .qkv_attention import Attention, scaled
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

    def __call__(self, x: mx.array, joined: int = 1) -> mx.array:
        """(B, N, dim) to the same shape; of ``joined`` ones, as windows of one image, each
        token attends to those of all."""
        B, N, C = x.shape
        y = self.norm1(x).reshape(B // joined, joined * N, C)
        x = x + self.layer_scale1(self.attention(y)).reshape(B, N, C)
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
    """Patches as tokens, and one that belongs to none, with positions for any size."""

    def __init__(self, dim: int, patch: int, side: int, *, antialias: bool) -> None:
        """``side``: of the table of positions, in patches."""
        super().__init__()
        self.side, self.patch, self.antialias = side, patch, antialias
        self.cls_token = mx.zeros((1, 1, dim))
        self.position_embeddings = mx.zeros((1, side * side + 1, dim))
        self.patch_embeddings = {"projection": Conv2d(3, dim, patch, patch)}

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(B, H, W, 3) image to the (1, 1, dim) token and the (B, h, w, dim) patches."""
        x = self.patch_embeddings["projection"](x)
        _, H, W, C = x.shape
        first, table = mx.split(self.position_embeddings, [1], axis=1)
        table = table.reshape(self.side, self.side, C)
        if self.side != H or self.side != W:
            table = bicubic(table, (H, W), antialias=self.antialias)
        return self.cls_token + first, x + table


class Backbone(nn.Module):
    """The maps behind the blocks ``out``, counted from 1, each with the last norm.

    With ``windows`` (a side) tokens attend to those of their window, each with a first token
    of its own, but in blocks whose number, counted from 0, is in ``out``: there to all.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        out: tuple[int, ...],
        patch: int,
        side: int,
        *,
        windows: int = 1,
        antialias: bool = False,
    ) -> None:
        """``side``: of the table of positions, whose resize is PIL's with ``antialias``."""
        super().__init__()
        self.out, self.windows = out, windows
        self.embeddings = Embeddings(dim, patch, side, antialias=antialias)
        self.encoder = {"layer": [Block(dim, heads) for _ in range(depth)]}
        self.layernorm = nn.LayerNorm(dim, eps=1e-6)

    def __call__(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to one NHWC map of the patches for each of ``out``."""
        token, patches = self.embeddings(x)
        shape, count = patches.shape, self.windows**2
        x = self._cut(patches)
        token = mx.broadcast_to(token, (len(x), 1, x.shape[2]))
        x, found = mx.concatenate([token, x], axis=1), []
        for number, block in enumerate(self.encoder["layer"]):
            x = block(x, count if number in self.out else 1)
            if number + 1 in self.out:
                found.append(self._joined(self.layernorm(x)[:, 1:], shape))
        return found

    def _cut(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B x windows², tokens, C)."""
        (B, H, W, C), n = x.shape, self.windows
        if n > 1:
            x = x.reshape(B, n, H // n, n, W // n, C).swapaxes(2, 3)
        return x.reshape(B * n * n, -1, C)

    def _joined(self, x: mx.array, shape: tuple[int, ...]) -> mx.array:
        """(B x windows², tokens, C) to the (B, H, W, C) map of that ``shape``."""
        (B, H, W, C), n = shape, self.windows
        if n > 1:
            x = x.reshape(B, n, n, H // n, W // n, C).swapaxes(2, 3)
        return x.reshape(shape)
