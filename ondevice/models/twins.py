"""Twins: attention to a smaller map, in SVT in turn with attention within windows.

Paper: https://arxiv.org/abs/2104.13840
Code: https://github.com/Meituan-AutoML/Twins (Apache-2.0); names follow timm/models/twins.py
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..nn.conditional_positions import ConditionalPositions
from ..nn.image_model import ImageModel, in_turn
from ..nn.patch_embed import PatchEmbed
from ..nn.reduced_attention import ReducedAttention
from ..nn.residual import BLOCK, Block, ScaledResidual
from ..nn.transformer import Mlp
from ..nn.windows import WindowAttention
from ..registry import ModelSpec, register_model, timm_weights

PATCHES = (4, 2, 2, 2)  # of each stage, in positions a side of the map before
STRIDES = (8, 4, 2, 1)  # of a stage's keys
EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class TwinsConfig(PyramidConfig):
    depth: tuple[int, ...]
    heads: tuple[int, ...]
    ratio: tuple[int, ...] = (4, 4, 4, 4)  # of the hidden channels of MLPs
    window: int = 0  # positions a side, of the attention of every other block

    @property
    def stride(self) -> int:
        return self.feature_info[-1].stride


def _block(c: TwinsConfig, i: int, j: int) -> Block:
    dim, heads = c.embed_dim[i], c.heads[i]
    attn = (
        WindowAttention(dim, heads, c.window)
        if c.window and j % 2 == 0
        else ReducedAttention(dim, heads, STRIDES[i])
    )
    branches = (attn, Mlp(dim, c.ratio[i] * dim))
    return Block(*(ScaledResidual(m, dim, nn.LayerNorm(dim, EPS), None) for m in branches))


class Stage(nn.Module):
    """Patches of the map before, a block, positions, and the other blocks."""

    def __init__(self, c: TwinsConfig, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(in_dim, dim, PATCHES[i], PATCHES[i])
        self.positions = ConditionalPositions(dim)
        self.blocks = [_block(c, i, j) for j in range(c.depth[i])]

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / patch, W / patch, C)."""
        first, *rest = self.blocks
        for layer in (self.patch_embed, first, self.positions, *rest):
            x = layer(x)
        return x


class Twins(ImageModel):
    def __init__(self, config: TwinsConfig) -> None:
        super().__init__()
        c, last = config, config.embed_dim[-1]
        self.config = config
        pairs = pairwise([3, *c.embed_dim])
        self.stages = [Stage(c, i, *pair) for i, pair in enumerate(pairs)]
        self.norm = nn.LayerNorm(last, EPS)
        if c.num_classes:
            self.head = nn.Linear(last, c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn([], self.stages, x)

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)


_RENAMES = (
    (r"^patch_embeds\.(\d)\.", r"stages.\1.patch_embed."),
    (r"^pos_block\.(\d)\.proj\.0\.", r"stages.\1.positions.proj."),
    (r"^blocks\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    *BLOCK,
)


def _register(name: str, top1: float, params: int, macs: int, config: TwinsConfig) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="twins",
            build=Twins,
            config=config,
            preprocess=Preprocess(crop_pct=0.9),
            checkpoints=(timm_weights(name, "in1k", "apache-2.0", top1),),
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


def _pcpvt(size: str, top1: float, params: int, macs: int, *depth: int) -> None:
    config = TwinsConfig(
        embed_dim=(64, 128, 320, 512), heads=(1, 2, 5, 8), depth=depth, ratio=(8, 8, 4, 4)
    )
    _register(f"twins_pcpvt_{size}", top1, params, macs, config)


def _svt(size: str, top1: float, params: int, macs: int, width: int, *depth: int) -> None:
    dims = (width, 2 * width, 4 * width, 8 * width)
    config = TwinsConfig(
        embed_dim=dims, heads=tuple(dim // 32 for dim in dims), depth=depth, window=7
    )
    _register(f"twins_svt_{size}", top1, params, macs, config)


_pcpvt("small", 81.096, 24_110_000, 3_830_000_000, 3, 4, 6, 3)
_pcpvt("base", 82.71, 43_830_000, 6_680_000_000, 3, 4, 18, 3)
_pcpvt("large", 83.13, 60_990_000, 9_840_000_000, 3, 8, 27, 3)
_svt("small", 81.678, 24_060_000, 2_940_000_000, 64, 2, 2, 10, 4)
_svt("base", 83.122, 56_070_000, 8_590_000_000, 96, 2, 2, 18, 2)
_svt("large", 83.678, 99_270_000, 15_150_000_000, 128, 2, 2, 18, 2)
