"""SHViT: single-head vision transformer.

Paper: https://arxiv.org/abs/2401.16456
Code: https://github.com/ysj9909/SHViT (MIT); parameter names follow timm/models/shvit.py
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..config.labels import IMAGENET1K
from ..cpu import kernels
from ..nn.image_model import ImageModel, in_turn
from ..nn.layers import (
    FFN,
    ConvNorm,
    GroupNorm1,
    NormLinear,
    ReLU,
    Residual,
    Stage,
    affine_input,
    conv_stem,
    scale_output,
    stage_renames,
)
from ..registry import Checkpoint, ModelSpec, register_model


@dataclass(frozen=True, kw_only=True)
class SHViTConfig(ModelConfig):
    embed_dim: tuple[int, ...]
    depth: tuple[int, ...]
    partial_dim: tuple[int, ...]  # channels that attend; the others pass by
    qk_dim: tuple[int, ...] = (16, 16, 16)
    attention: tuple[bool, ...] = (False, True, True)

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, c, 2 ** (i + 4)) for i, c in enumerate(self.embed_dim))


class SHSA(nn.Module):
    """Single-head self-attention over the first ``partial_dim`` channels."""

    def __init__(self, dim: int, partial_dim: int, qk_dim: int) -> None:
        super().__init__()
        self.splits = [qk_dim, 2 * qk_dim]
        self.partial_dim = partial_dim
        self.scale = qk_dim**-0.5
        self.pre_norm = GroupNorm1(partial_dim)
        self.qkv: nn.Module = ConvNorm(partial_dim, 2 * qk_dim + partial_dim)
        self.proj = [ReLU(), ConvNorm(dim, dim)]

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, _ = x.shape
        x, rest = mx.split(x, [self.partial_dim], axis=-1)
        qkv = self.qkv(self.pre_norm(x)).reshape(B, H * W, -1)
        q, k, v = mx.split(qkv, self.splits, axis=-1)
        q = q if self.scale == 1 else q * self.scale
        attn = kernels.softmax(q @ k.swapaxes(1, 2))
        x = mx.concatenate([(attn @ v).reshape(B, H, W, -1), rest], axis=-1)
        for layer in self.proj:
            x = layer(x)
        return x

    def fuse(self) -> SHSA:
        """The norm's scale and shift, and the scale of q, go into the 1x1 ``qkv``."""
        norm = self.pre_norm
        if "weight" not in norm:
            return self
        qkv = affine_input(self.qkv, norm.weight, norm.bias)
        q = mx.arange(qkv.weight.shape[0]) < self.splits[0]
        scale = mx.where(q, self.scale, 1.0).astype(qkv.weight.dtype)
        fused = copy.copy(self)
        fused.qkv = scale_output(qkv, scale)
        fused.pre_norm, fused.scale = norm.without_affine(), 1.0
        return fused


class Block(nn.Module):
    def __init__(self, dim: int, partial_dim: int, qk_dim: int, attention: bool) -> None:
        super().__init__()
        self.conv = Residual(ConvNorm(dim, dim, 3, groups=dim))
        self.mixer = Residual(SHSA(dim, partial_dim, qk_dim)) if attention else nn.Identity()
        self.ffn = Residual(FFN(dim))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.ffn(self.mixer(self.conv(x)))


class SHViT(ImageModel):
    def __init__(self, config: SHViTConfig) -> None:
        super().__init__()
        c, stem = config, config.embed_dim[0]
        self.config = config
        self.patch_embed = conv_stem(stem)
        dims = pairwise([stem, *c.embed_dim])
        stages = zip(dims, c.depth, c.partial_dim, c.qk_dim, c.attention, strict=True)
        self.stages = [
            Stage(in_dim, dim, [Block(dim, part, qk, attn) for _ in range(depth)])
            for (in_dim, dim), depth, part, qk, attn in stages
        ]
        if c.num_classes:
            self.head = NormLinear(c.embed_dim[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to three NHWC maps."""
        return in_turn(self.patch_embed, self.stages, x)


def _register(
    name: str,
    *checkpoints: Checkpoint,
    config: SHViTConfig,
    preprocess: Preprocess = Preprocess(),  # noqa: B008 - frozen
    params: int | None = None,
    macs: int | None = None,
) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="shvit",
            build=SHViT,
            config=config,
            preprocess=preprocess,
            checkpoints=checkpoints,
            renames=(
                (r"\.c\.weight$", ".conv.weight"),
                (r"^head\.l\.", "head.linear."),
                *stage_renames(config.depth),
            ),
            params=params,
            macs=macs,
        )
    )


def _in1k(name: str, top1: float) -> Checkpoint:
    return Checkpoint(
        tag="in1k", repo=f"timm/{name}.in1k", license="mit", top1=top1, labels=IMAGENET1K
    )


_register(
    "shvit_s1",
    _in1k("shvit_s1", 72.78),
    config=SHViTConfig(embed_dim=(128, 224, 320), depth=(2, 4, 5), partial_dim=(32, 48, 68)),
    params=6_330_000,
    macs=241_000_000,
)
_register(
    "shvit_s2",
    _in1k("shvit_s2", 75.184),
    config=SHViTConfig(embed_dim=(128, 308, 448), depth=(2, 4, 5), partial_dim=(32, 66, 96)),
    params=11_480_000,
    macs=366_000_000,
)
_register(
    "shvit_s3",
    _in1k("shvit_s3", 77.356),
    config=SHViTConfig(embed_dim=(192, 352, 448), depth=(3, 5, 5), partial_dim=(48, 75, 96)),
    params=14_250_000,
    macs=601_000_000,
)
_register(
    "shvit_s4",
    _in1k("shvit_s4", 79.362),
    config=SHViTConfig(embed_dim=(224, 336, 448), depth=(4, 7, 6), partial_dim=(48, 72, 96)),
    preprocess=Preprocess(size=256),
    params=16_590_000,
    macs=986_000_000,
)
# Small enough to ship: for trying the whole chain without a download.
_register(
    "shvit_nano",
    Checkpoint(tag="cifar10", repo="", license="mit"),
    Checkpoint(tag="flowers", repo="", license="mit"),
    config=SHViTConfig(
        embed_dim=(64, 112, 160), depth=(2, 3, 3), partial_dim=(16, 24, 34), num_classes=10
    ),
    preprocess=Preprocess(size=96),
)
