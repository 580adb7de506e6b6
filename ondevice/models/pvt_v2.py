"""PVTv2: attention of every position to a smaller map, and MLPs with a convolution inside.

Paper: https://arxiv.org/abs/2106.13797
Code: https://github.com/whai362/PVT (Apache-2.0); names follow timm/models/pvt_v2.py
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..cpu import kernels
from ..nn.image_model import ImageModel, in_turn
from ..nn.layers import Conv2d
from ..nn.patch_embed import PatchEmbed
from ..nn.reduced_attention import ReducedAttention
from ..nn.residual import Block, ScaledResidual
from ..registry import ModelSpec, register_model, timm_weights

HEADS, STRIDES = (1, 2, 5, 8), (8, 4, 2, 1)  # of a stage's attention, and of its keys
POOLED = 7  # positions a side of the keys where attention is linear


@dataclass(frozen=True, kw_only=True)
class PVTv2Config(PyramidConfig):
    depth: tuple[int, ...]
    ratio: tuple[int, ...] = (8, 8, 4, 4)  # of the hidden channels of MLPs
    linear: bool = False

    @property
    def stride(self) -> int:
        return self.feature_info[-1].stride


class DepthwiseMlp(nn.Module):
    """Two linear layers with a depthwise convolution and a GELU between."""

    last = "fc2"

    def __init__(self, dim: int, hidden: int, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        x = self.fc1(x)
        x = kernels.relu(x) if self.relu else x
        return self.fc2(kernels.gelu(self.dwconv(x)))


class PooledAttention(ReducedAttention):
    """Attention to the means of 7 x 7 parts of a map."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads, 1)
        self.sr = Conv2d(dim, dim, 1)
        self.norm = nn.LayerNorm(dim)

    def smaller(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the one that keys and values are of."""
        return kernels.gelu(self.norm(self.sr(pooled(x, POOLED))))


def pooled(x: mx.array, side: int) -> mx.array:
    """(B, side, side, C): the means of as many parts of a map, which overlap where need be."""
    rows, columns = (_shares(n, side).astype(x.dtype) for n in x.shape[1:3])
    if x.shape[1] % side == x.shape[2] % side == 0:
        return nn.AvgPool2d((x.shape[1] // side, x.shape[2] // side))(x)
    B, H, W, C = x.shape
    y = (rows @ x.reshape(B, H, W * C)).reshape(B * side, W, C)
    return (columns @ y).reshape(B, side, side, C)


def _shares(size: int, parts: int) -> mx.array:
    """(parts, size): what each position counts in the mean of each part of an axis."""
    part, place = mx.arange(parts)[:, None], mx.arange(size)
    inside = (place >= part * size // parts) & (place < -(-(part + 1) * size // parts))
    return inside / inside.sum(axis=1, keepdims=True)


def _block(c: PVTv2Config, i: int, dim: int) -> Block:
    attn = (
        PooledAttention(dim, HEADS[i])
        if c.linear
        else ReducedAttention(dim, HEADS[i], STRIDES[i])
    )
    mlp = DepthwiseMlp(dim, c.ratio[i] * dim, c.linear)
    norms = (nn.LayerNorm(dim, 1e-6) for _ in range(2))
    return Block(*(ScaledResidual(m, dim, next(norms), None) for m in (attn, mlp)))


class Stage(nn.Module):
    def __init__(self, c: PVTv2Config, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        self.downsample = PatchEmbed(in_dim, dim, 3, 2, 1) if i else nn.Identity()
        self.blocks = [_block(c, i, dim) for _ in range(c.depth[i])]
        self.norm = nn.LayerNorm(dim, 1e-6)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to that of the stage."""
        x = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class PVTv2(ImageModel):
    def __init__(self, config: PVTv2Config) -> None:
        super().__init__()
        c = config
        self.config = config
        self.patch_embed = PatchEmbed(3, c.embed_dim[0], 7, 4, 3)
        dims = pairwise([c.embed_dim[0], *c.embed_dim])
        self.stages = [Stage(c, i, *pair) for i, pair in enumerate(dims)]
        if c.num_classes:
            self.head = nn.Linear(c.embed_dim[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn([self.patch_embed], self.stages, x)


_RENAMES = (
    (r"(blocks\.\d+)\.norm1\.", r"\1.mixer.norm."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.mlp.norm."),
    (r"(blocks\.\d+)\.attn\.", r"\1.mixer.m."),
    (r"(blocks\.\d+)\.mlp\.(fc\d|dwconv)\.", r"\1.mlp.m.\2."),
)


def _register(name: str, top1: float, params: int, macs: int, config: PVTv2Config) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="pvt_v2",
            build=PVTv2,
            config=config,
            preprocess=Preprocess(crop_pct=0.9),
            checkpoints=(timm_weights(name, "in1k", "apache-2.0", top1),),
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


def _config(width: int, *depth: int, **more: Any) -> PVTv2Config:
    dims = (32, 64, 160, 256) if width == 32 else (64, 128, 320, 512)
    return PVTv2Config(embed_dim=dims, depth=depth, **more)


_register("pvt_v2_b0", 70.66, 3_670_000, 570_000_000, _config(32, 2, 2, 2, 2))
_register("pvt_v2_b1", 78.702, 14_010_000, 2_120_000_000, _config(64, 2, 2, 2, 2))
_register("pvt_v2_b2", 82.086, 25_360_000, 4_050_000_000, _config(64, 3, 4, 6, 3))
_register("pvt_v2_b3", 83.12, 45_240_000, 6_920_000_000, _config(64, 3, 4, 18, 3))
_register("pvt_v2_b4", 83.71, 62_560_000, 10_140_000_000, _config(64, 3, 8, 27, 3))
_register(
    "pvt_v2_b5", 83.742, 81_960_000, 11_760_000_000, _config(64, 3, 6, 40, 3, ratio=(4,) * 4)
)
_register(
    "pvt_v2_b2_li", 82.194, 22_550_000, 3_910_000_000, _config(64, 3, 4, 6, 3, linear=True)
)
