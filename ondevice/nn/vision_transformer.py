"""The plain vision transformer: patches, positions, blocks, and one of three ways to pool.

Paper: https://arxiv.org/abs/2010.11929
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig
from ..cpu import kernels
from .image_model import ImageModel
from .layers import ACTIVATIONS, Conv2d
from .residual import Block, ScaledResidual
from .transformer import Mlp, SelfAttention

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class VisionTransformerConfig(ModelConfig):
    """``img_size`` is that of the table of positions; of other sizes it is resized."""

    num_classes: int = 0
    patch: int
    img_size: int
    embed_dim: int = 768
    depth: int = 12
    heads: int = 12
    pool: Literal["token", "mean", "attention"] = "token"
    registers: int = 0  # tokens beside the first that belong to no patch
    layer_scale: float | None = None
    act: Literal["gelu", "gelu_tanh"] = "gelu"

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return (FeatureInfo(0, self.embed_dim, self.patch),)

    @property
    def side(self) -> int:
        """Patches a side of the table of positions."""
        return self.img_size // self.patch

    @property
    def first_has_position(self) -> bool:
        """Whether the table's first entry is the first token's."""
        return self.pool == "token" and not self.registers


class PatchEmbed(nn.Module):
    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = Conv2d(3, dim, patch, patch)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, H / patch, W / patch, C)."""
        return self.proj(x)


class AttentionPool(nn.Module):
    """What a learned query attends to, and an MLP."""

    def __init__(self, dim: int, heads: int, act: str) -> None:
        super().__init__()
        self.heads = heads
        self.latent = mx.zeros((1, 1, dim))
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, EPS)
        self.mlp = Mlp(dim, 4 * dim, ACTIVATIONS[act]())

    def __call__(self, x: mx.array) -> mx.array:
        """(B, N, C) to (B, C)."""
        B, _, C = x.shape
        k, v = mx.split(self.kv(x), 2, axis=-1)
        q, k, v = (
            y.reshape(y.shape[0], -1, self.heads, C // self.heads).swapaxes(1, 2)
            for y in (self.q(self.latent), k, v)
        )
        attn = kernels.softmax((q * (C // self.heads) ** -0.5) @ k.swapaxes(2, 3))
        y = self.proj((attn @ v).swapaxes(1, 2).reshape(B, C))
        return y + self.mlp(self.norm(y))


class VisionTransformer(ImageModel):
    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        c, dim = config, config.embed_dim
        self.config = config
        self.patch_embed = PatchEmbed(dim, c.patch)
        self.pos_embed = mx.zeros((1, c.side**2 + c.first_has_position, dim))
        if c.pool == "token":
            self.cls_token = mx.zeros((1, 1, dim))
        if c.registers:
            self.reg_token = mx.zeros((1, c.registers, dim))
        self.blocks = [self._block() for _ in range(c.depth)]
        self.norm = nn.LayerNorm(dim, EPS)
        if c.pool == "attention":
            self.attn_pool = AttentionPool(dim, c.heads, c.act)
        if c.num_classes:
            self.head = nn.Linear(dim, c.num_classes)

    def _block(self) -> Block:
        c, dim = self.config, self.config.embed_dim
        parts = SelfAttention(dim, c.heads), Mlp(dim, 4 * dim, ACTIVATIONS[c.act]())
        return Block(
            *(ScaledResidual(m, dim, nn.LayerNorm(dim, EPS), c.layer_scale) for m in parts)
        )

    def tokens(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, tokens, C): first those that belong to no patch."""
        x = self.patch_embed(x)
        B, H, W, C = x.shape
        first = self.pos_embed[:, : int(self.config.first_has_position)]
        table = self.pos_embed[:, first.shape[1] :]
        if (self.config.side, self.config.side) != (H, W):
            table = resized(table[0], self.config.side, H, W)[None]
        x = x.reshape(B, H * W, C) + table
        extra = (
            [self.cls_token + first if first.size else self.cls_token]
            if "cls_token" in self
            else []
        )
        extra += [self.reg_token] if "reg_token" in self else []
        x = mx.concatenate([*(mx.broadcast_to(t, (B, *t.shape[1:])) for t in extra), x], axis=1)
        for block in self.blocks:
            x = block(x)
        return x

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to one NHWC map, of the patches."""
        c, (B, H, W, _) = self.config, x.shape
        patches = self.tokens(x)[:, (c.pool == "token") + c.registers :]
        return [patches.reshape(B, H // c.patch, W // c.patch, -1)]

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)

    def pooled(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to the (B, C) of the first token, or of what is pooled."""
        if self.config.pool != "token":
            return super().pooled(x)
        self.check_input(x)
        return self.norm(self.tokens(x)[:, 0])

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) normalized map to (B, C)."""
        return self.attn_pool(x.flatten(1, 2)) if "attn_pool" in self else super().pool(x)


def resized(table: mx.array, side: int, height: int, width: int) -> mx.array:
    """(side * side, C) positions to (height * width, C): bicubic, smoothed where it shrinks."""
    C = table.shape[1]
    rows, columns = (_cubic(side, n).astype(table.dtype) for n in (height, width))
    y = (rows @ table.reshape(side, side * C)).reshape(height, side, C)
    return (columns @ y).reshape(height * width, C)


def _cubic(size: int, out: int) -> mx.array:
    """(out, size) weights of cubic interpolation, as Pillow's and of torch's antialiasing."""
    # Twice the gaps in units of 1 / out: whole numbers, and so exact.
    twice = (2 * mx.arange(out)[:, None] + 1) * size - (2 * mx.arange(size) + 1) * out
    gap = mx.abs(twice) / (2 * max(size, out))
    near = (1.5 * gap - 2.5) * gap * gap + 1
    far = ((-0.5 * gap + 2.5) * gap - 4) * gap + 2
    weight = mx.where(gap < 1, near, mx.where(gap < 2, far, 0.0))
    return weight / weight.sum(axis=1, keepdims=True)


RENAMES = (
    (r"(blocks\.\d+)\.norm1\.", r"\1.mixer.norm."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.mlp.norm."),
    (r"(blocks\.\d+)\.attn\.", r"\1.mixer.m."),
    (r"(blocks\.\d+)\.mlp\.fc", r"\1.mlp.m.fc"),
    (r"\.ls1\.gamma$", ".mixer.layer_scale"),
    (r"\.ls2\.gamma$", ".mlp.layer_scale"),
)
