"""TinyViT: convolutions, then attention in windows with a convolution behind it.

Paper: https://arxiv.org/abs/2207.10666
Code: https://github.com/microsoft/Cream/tree/main/TinyViT (MIT); names follow
timm/models/tiny_vit.py
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..nn.attention import BiasedAttention
from ..nn.drop_path import DropPath
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import GELU, ConvNorm
from ..nn.residual import ScaledResidual
from ..nn.transformer import Mlp
from ..nn.windows import Windowed
from ..registry import Checkpoint, ModelSpec, register_model, timm_weights

IN22K = 21841  # classes of ImageNet-22k


@dataclass(frozen=True, kw_only=True)
class TinyViTConfig(PyramidConfig):
    heads: tuple[int, ...]
    windows: tuple[int, ...] = (7, 7, 14, 7)
    depth: tuple[int, ...] = (2, 2, 6, 2)


class MBConv(DropPath):
    """An inverted bottleneck with a GELU behind the sum."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = 4 * dim
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)
        self.act = GELU()

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        y = self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))
        return self.act(x + self.dropped(y))


class PatchMerging(nn.Module):
    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_dim, dim)
        self.conv2 = ConvNorm(dim, dim, 3, 2, groups=dim)
        self.conv3 = ConvNorm(dim, dim)
        self.act = GELU()

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / 2, W / 2, C), halves rounded up."""
        return self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))


class Block(nn.Module):
    """Attention in windows, neighbours, channels."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        size = dim // heads
        attn = BiasedAttention(dim, heads, size, size, window)
        # Windows are padded with zeros before their norm.
        normed = nn.Sequential(nn.LayerNorm(dim), attn)
        self.attn = ScaledResidual(Windowed(normed, window), dim, scale=None)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = ScaledResidual(Mlp(dim, 4 * dim), dim, nn.LayerNorm(dim), scale=None)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.mlp(self.local_conv(self.attn(x)))


class Stage(DownStage):
    """A step down, but for the first, and blocks."""

    def __init__(self, c: TinyViTConfig, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        self.downsample = PatchMerging(in_dim, dim) if i else nn.Identity()
        self.blocks: list[nn.Module] = [
            Block(dim, c.heads[i], c.windows[i]) if i else MBConv(dim)
            for _ in range(c.depth[i])
        ]


class TinyViT(ImageModel):
    def __init__(self, config: TinyViTConfig) -> None:
        super().__init__()
        c, stem, last = config, config.embed_dim[0], config.embed_dim[-1]
        self.config = config
        first, second = ConvNorm(3, stem // 2, 3, 2), ConvNorm(stem // 2, stem, 3, 2)
        self.patch_embed = [first, GELU(), second]
        dims = pairwise([stem, *c.embed_dim])
        self.stages = [Stage(c, i, *pair) for i, pair in enumerate(dims)]
        self.norm = nn.LayerNorm(last)
        if c.num_classes:
            self.head = nn.Linear(last, c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.patch_embed, self.stages, x)

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) last map to (B, C), normalized."""
        return self.norm(super().pool(x))


_RENAMES = (
    (r"^patch_embed\.conv1\.", "patch_embed.0."),
    (r"^patch_embed\.conv2\.", "patch_embed.2."),
    (r"\.attn\.norm\.", ".attn.m.m.layers.0."),
    (r"\.attn\.(qkv|proj)\.", r".attn.m.m.layers.1.\1."),
    (r"\.attn\.attention_biases$", ".attn.m.m.layers.1.bias.table"),
    (r"\.mlp\.fc", ".mlp.m.fc"),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
)


def _register(
    name: str,
    *checkpoints: Checkpoint,
    config: TinyViTConfig,
    preprocess: Preprocess,
    params: int,
    macs: int,
) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="tiny_vit",
            build=TinyViT,
            config=config,
            preprocess=preprocess,
            checkpoints=checkpoints,
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


def _weights(name: str, distilled: float, top1: float | None = None) -> list[Checkpoint]:
    """Those that learned from ImageNet-22k and a teacher, and those that did not."""
    weights = [timm_weights(name, "dist_in22k_ft_in1k", "apache-2.0", distilled)]
    if top1 is not None:
        more = {"num_classes": IN22K}
        weights += [
            timm_weights(name, "in1k", "apache-2.0", top1),
            timm_weights(name, "dist_in22k", "apache-2.0", labels="", config=more),
        ]
    return weights


_SMALL = Preprocess(crop_pct=0.95)
_21M = TinyViTConfig(embed_dim=(96, 192, 384, 576), heads=(3, 6, 12, 18))

_register(
    "tiny_vit_5m_224",
    *_weights("tiny_vit_5m_224", 80.7, 79.1),
    config=TinyViTConfig(embed_dim=(64, 128, 160, 320), heads=(2, 4, 5, 10)),
    preprocess=_SMALL,
    params=5_390_000,
    macs=1_270_000_000,
)
_register(
    "tiny_vit_11m_224",
    *_weights("tiny_vit_11m_224", 83.2, 81.5),
    config=TinyViTConfig(embed_dim=(64, 128, 256, 448), heads=(2, 4, 8, 14)),
    preprocess=_SMALL,
    params=11_000_000,
    macs=2_030_000_000,
)
_register(
    "tiny_vit_21m_224",
    *_weights("tiny_vit_21m_224", 84.8, 83.1),
    config=_21M,
    preprocess=_SMALL,
    params=21_200_000,
    macs=4_270_000_000,
)
_register(
    "tiny_vit_21m_384",
    *_weights("tiny_vit_21m_384", 86.2),
    config=replace(_21M, windows=(12, 12, 24, 12)),
    preprocess=Preprocess(size=384, crop_pct=1),
    params=21_230_000,
    macs=13_800_000_000,
)
_register(
    "tiny_vit_21m_512",
    *_weights("tiny_vit_21m_512", 86.5),
    config=replace(_21M, windows=(16, 16, 32, 16)),
    preprocess=Preprocess(size=512, crop_pct=1, crop_mode="squash"),
    params=21_270_000,
    macs=27_000_000_000,
)
