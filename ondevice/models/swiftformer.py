"""SwiftFormer: attention that adds one weighted query to all keys, at the end of each stage.

Paper: https://arxiv.org/abs/2303.15446
Code: https://github.com/Amshaker/SwiftFormer; names follow timm/models/swiftformer.py
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..nn.batch_norm import BatchNorm
from ..nn.heads import DISTILLED, DistilledHead
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import GELU, Conv2d, ConvMlp, ConvNorm, ReLU, unit
from ..nn.residual import ScaledResidual
from ..registry import ModelSpec, register_model, timm_weights


@dataclass(frozen=True, kw_only=True)
class SwiftFormerConfig(PyramidConfig):
    depth: tuple[int, ...]


class Local(nn.Module):
    """A depthwise convolution with a norm, then two 1x1."""

    last = "pwconv2"

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dwconv = ConvNorm(dim, dim, 3, groups=dim, bias=True)
        self.pwconv1 = Conv2d(dim, hidden, 1)
        self.act = GELU()
        self.pwconv2 = Conv2d(hidden, dim, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.pwconv2(self.act(self.pwconv1(self.dwconv(x))))


class AdditiveAttention(nn.Module):
    """The mean query, weighted by what is learned, times each key."""

    last = "final"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.to_query = nn.Linear(dim, dim)
        self.to_key = nn.Linear(dim, dim)
        self.w_g = mx.random.normal((dim, 1))
        self.proj = nn.Linear(dim, dim)
        self.final = nn.Linear(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, C = x.shape
        x = x.reshape(B, H * W, C)
        query, key = unit(self.to_query(x)), unit(self.to_key(x))
        weight = unit(query @ (self.w_g * self.scale), axis=1)
        total = (weight * query).sum(axis=1, keepdims=True)
        return self.final(self.proj(total * key) + query).reshape(B, H, W, C)


class Block(nn.Module):
    """Neighbours, attention, channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.local = ScaledResidual(Local(dim, dim), dim, scale=1)
        self.attn = ScaledResidual(AdditiveAttention(dim), dim)
        self.mlp = ScaledResidual(ConvMlp(dim, 4 * dim, GELU()), dim, BatchNorm(dim))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.mlp(self.attn(self.local(x)))


class Stage(DownStage):
    """A step down, but for the first; convolutions, then one block that attends."""

    def __init__(self, in_dim: int, dim: int, depth: int, down: bool) -> None:
        super().__init__()
        self.downsample = ConvNorm(in_dim, dim, 3, 2, bias=True) if down else nn.Identity()
        convs = [ScaledResidual(Local(dim, 4 * dim), dim, scale=1) for _ in range(depth - 1)]
        self.blocks = [*convs, Block(dim)]


class SwiftFormer(ImageModel):
    def __init__(self, config: SwiftFormerConfig) -> None:
        super().__init__()
        c, stem = config, config.embed_dim[0]
        self.config = config
        first = ConvNorm(3, stem // 2, 3, 2, bias=True)
        self.stem = [first, ReLU(), ConvNorm(stem // 2, stem, 3, 2, bias=True), ReLU()]
        pairs = zip(pairwise([stem, *c.embed_dim]), c.depth, strict=True)
        self.stages = [Stage(*dims, depth, i > 0) for i, (dims, depth) in enumerate(pairs)]
        self.norm = BatchNorm(c.embed_dim[-1])
        if c.num_classes:
            self.head = DistilledHead.linear(c.embed_dim[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.stem, self.stages, x)

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)


_LOCAL = r"(blocks\.\d+\.(?:local\.)?)"
_RENAMES = (
    (r"^stem\.0\.(?=weight|bias)", "stem.0.conv."),
    (r"^stem\.1\.", "stem.0.bn."),
    (r"^stem\.3\.", "stem.2.conv."),
    (r"^stem\.4\.", "stem.2.bn."),
    (r"\.downsample\.proj\.", ".downsample.conv."),
    (r"\.downsample\.norm\.", ".downsample.bn."),
    (r"\.local_representation\.", ".local."),
    (_LOCAL + r"dwconv\.", r"\1m.dwconv.conv."),
    (_LOCAL + r"norm\.", r"\1m.dwconv.bn."),
    (_LOCAL + r"(pwconv\d)\.", r"\1m.\2."),
    (r"\.layer_scale\.gamma$", ".layer_scale"),
    (r"\.layer_scale_1\.gamma$", ".attn.layer_scale"),
    (r"\.layer_scale_2\.gamma$", ".mlp.layer_scale"),
    (r"\.attn\.(to_\w+|w_g|proj|final)", r".attn.m.\1"),
    (r"\.linear\.norm1\.", ".mlp.norm."),
    (r"\.linear\.fc", ".mlp.m.fc"),
    *DISTILLED,
)


def _register(
    name: str,
    top1: float,
    params: int,
    macs: int,
    embed_dim: tuple[int, ...],
    depth: tuple[int, ...],
) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="swiftformer",
            build=SwiftFormer,
            config=SwiftFormerConfig(embed_dim=embed_dim, depth=depth),
            preprocess=Preprocess(crop_pct=0.95),
            checkpoints=(timm_weights(name, "dist_in1k", "apache-2.0", top1),),
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


_register("swiftformer_xs", 75.7, 3_480_000, 610_000_000, (48, 56, 112, 220), (3, 3, 6, 4))
_register("swiftformer_s", 78.5, 6_090_000, 990_000_000, (48, 64, 168, 224), (3, 3, 9, 6))
_register("swiftformer_l1", 80.9, 12_060_000, 1_600_000_000, (48, 96, 192, 384), (4, 3, 10, 5))
_register("swiftformer_l3", 83.0, 28_490_000, 4_010_000_000, (64, 128, 320, 512), (4, 4, 12, 6))
