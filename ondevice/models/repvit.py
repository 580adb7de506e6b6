"""RepViT: a network of convolutions in the order of a vision transformer's parts.

Paper: https://arxiv.org/abs/2307.09283
Code: https://github.com/THU-MIG/RepViT (Apache-2.0); names follow timm/models/repvit.py
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..nn.batch_norm import BatchNorm
from ..nn.heads import DistilledHead
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import (
    GELU,
    Conv2d,
    ConvNorm,
    Residual,
    SqueezeExcite,
    add_identity,
    fold_norm,
    make_divisible,
    normed_mlp,
)
from ..nn.reparam import sum_convs
from ..registry import ModelSpec, register_model, timm_weights


@dataclass(frozen=True, kw_only=True)
class RepViTConfig(PyramidConfig):
    depth: tuple[int, ...]
    legacy: bool = False  # of the first version: a norm for each branch, none for the sum


class RepDepthwise(nn.Module):
    """A 3x3 and a 1x1 depthwise convolution and x itself, summed: one once fused."""

    def __init__(self, dim: int, legacy: bool) -> None:
        super().__init__()
        self.conv: nn.Module = ConvNorm(dim, dim, 3, groups=dim)
        if legacy:
            self.conv1: nn.Module = ConvNorm(dim, dim, groups=dim)
        else:
            self.conv1 = Conv2d(dim, dim, 1, groups=dim)
            self.bn = BatchNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        y = self.conv(x) + self.conv1(x) + x
        return self.bn(y) if "bn" in self else y

    def fuse(self) -> nn.Module:
        """One depthwise convolution."""
        conv = add_identity(sum_convs(self.conv, self.conv1))
        return fold_norm(conv, self.bn) if "bn" in self else conv


class Block(nn.Module):
    """Mixes neighbours, then, in every second block, weighs channels, then mixes channels."""

    def __init__(self, dim: int, legacy: bool, squeeze: bool) -> None:
        super().__init__()
        self.token_mixer = RepDepthwise(dim, legacy)
        self.se = SqueezeExcite(dim, make_divisible(dim / 4)) if squeeze else nn.Identity()
        self.channel_mixer = Residual(normed_mlp(dim, 2 * dim))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.channel_mixer(self.se(self.token_mixer(x)))


class Downsample(nn.Module):
    def __init__(self, in_dim: int, dim: int, legacy: bool) -> None:
        super().__init__()
        self.pre_block = Block(in_dim, legacy, squeeze=False)
        self.spatial_downsample = ConvNorm(in_dim, in_dim, 3, 2, groups=in_dim)
        self.channel_downsample = ConvNorm(in_dim, dim)
        self.ffn = Residual(normed_mlp(dim, 2 * dim))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / 2, W / 2, C), halves rounded up."""
        x = self.spatial_downsample(self.pre_block(x))
        return self.ffn(self.channel_downsample(x))


class Stage(DownStage):
    """A step down, but for the first, and blocks."""

    def __init__(self, in_dim: int, dim: int, depth: int, legacy: bool, down: bool) -> None:
        super().__init__()
        self.downsample = Downsample(in_dim, dim, legacy) if down else nn.Identity()
        self.blocks = [Block(dim, legacy, squeeze=j % 2 == 0) for j in range(depth)]


class RepViT(ImageModel):
    def __init__(self, config: RepViTConfig) -> None:
        super().__init__()
        c, stem = config, config.embed_dim[0]
        self.config = config
        self.stem = [ConvNorm(3, stem // 2, 3, 2), GELU(), ConvNorm(stem // 2, stem, 3, 2)]
        self.stages = [
            Stage(in_dim, dim, depth, c.legacy, down=i > 0)
            for i, ((in_dim, dim), depth) in enumerate(
                zip(pairwise([stem, *c.embed_dim]), c.depth, strict=True)
            )
        ]
        if c.num_classes:
            self.head = DistilledHead.normed(c.embed_dim[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.stem, self.stages, x)


_RENAMES = (
    (r"^stem\.conv1\.", "stem.0."),
    (r"^stem\.conv2\.", "stem.2."),
    (r"\.c\.weight$", ".conv.weight"),
    (r"\.(channel_mixer|ffn)\.conv1\.", r".\1.m.layers.0."),
    (r"\.(channel_mixer|ffn)\.conv2\.", r".\1.m.layers.2."),
    (r"^head\.(head\w*)\.l\.", r"head.\1.linear."),
)


def _register(
    name: str,
    config: RepViTConfig,
    params: int,
    macs: int,
    **top1: float,
) -> None:
    """``top1`` by tag."""
    register_model(
        ModelSpec(
            name=name,
            family="repvit",
            build=RepViT,
            config=config,
            preprocess=Preprocess(crop_pct=0.95),
            checkpoints=tuple(
                timm_weights(name, tag, "apache-2.0", percent) for tag, percent in top1.items()
            ),
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


def _config(width: int, *depth: int, legacy: bool = False) -> RepViTConfig:
    dims = (width, 2 * width, 4 * width, 8 * width)
    return RepViTConfig(embed_dim=dims, depth=depth, legacy=legacy)


_register(
    "repvit_m1", _config(48, 2, 2, 14, 2, legacy=True), 5_490_000, 820_000_000, dist_in1k=78.5
)
_register(
    "repvit_m2", _config(64, 2, 2, 12, 2, legacy=True), 8_800_000, 1_340_000_000, dist_in1k=80.6
)
_register(
    "repvit_m3",
    _config(64, 4, 4, 18, 2, legacy=True),
    10_680_000,
    1_860_000_000,
    dist_in1k=81.4,
)
_register(
    "repvit_m0_9",
    _config(48, 2, 2, 14, 2),
    5_490_000,
    820_000_000,
    dist_300e_in1k=78.7,
    dist_450e_in1k=79.1,
)
_register(
    "repvit_m1_0",
    _config(56, 2, 2, 14, 2),
    7_300_000,
    1_110_000_000,
    dist_300e_in1k=80.0,
    dist_450e_in1k=80.3,
)
_register(
    "repvit_m1_1",
    _config(64, 2, 2, 12, 2),
    8_800_000,
    1_340_000_000,
    dist_300e_in1k=80.7,
    dist_450e_in1k=81.2,
)
_register(
    "repvit_m1_5",
    _config(64, 4, 4, 24, 4),
    14_640_000,
    2_270_000_000,
    dist_300e_in1k=82.3,
    dist_450e_in1k=82.5,
)
_register(
    "repvit_m2_3",
    _config(80, 6, 6, 34, 2),
    23_690_000,
    4_520_000_000,
    dist_300e_in1k=83.3,
    dist_450e_in1k=83.7,
)
