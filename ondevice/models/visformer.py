"""Visformer: a stage of convolutions, then two of attention, with batch norms.

Paper: https://arxiv.org/abs/2104.12533
Code: https://github.com/danczs/Visformer (Apache-2.0); names follow timm/models/visformer.py
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..nn.batch_norm import BatchNorm
from ..nn.image_model import ImageModel, in_turn
from ..nn.layers import GELU, Conv2d, ConvNorm, ReLU
from ..nn.residual import BLOCK, Block, ScaledResidual
from ..nn.transformer import SelfAttention
from ..registry import ModelSpec, register_model, timm_weights

GROUPS = 8  # of the convolutions of the first stage
PATCHES = (4, 2, 2)  # of each stage, in positions a side of the map before


@dataclass(frozen=True, kw_only=True)
class VisformerConfig(ModelConfig):
    stem: int  # channels
    embed_dim: tuple[int, ...]
    heads: int
    depth: tuple[int, ...] = (7, 4, 4)
    img_size: int = 224

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, c, 8 * 2**i) for i, c in enumerate(self.embed_dim))

    @property
    def stride(self) -> int:
        return 2  # what is left of whole patches is not looked at

    @property
    def only_size(self) -> int:
        return self.img_size


class Mlp(nn.Module):
    """Two 1x1 convolutions; a ``spatial`` one has a 3x3 in groups of channels between."""

    first, last = ("conv1",), "conv3"

    def __init__(self, dim: int, hidden: int, spatial: bool) -> None:
        super().__init__()
        self.act = GELU()
        self.conv1 = Conv2d(dim, hidden, 1, bias=False)
        if spatial:
            self.conv2 = Conv2d(hidden, hidden, 3, padding=1, groups=GROUPS, bias=False)
        self.conv3 = Conv2d(hidden, dim, 1, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        x = self.act(self.conv1(x))
        x = self.act(self.conv2(x)) if "conv2" in self else x
        return self.conv3(x)


def _block(dim: int, heads: int, spatial: bool) -> Block:
    """Attention, which those of the first stage, the ``spatial`` ones, lack, and an MLP."""
    mixer: nn.Module = nn.Identity()
    if not spatial:
        mixer = ScaledResidual(SelfAttention(dim, heads, bias=False), dim, BatchNorm(dim), None)
    mlp = Mlp(dim, 2 * dim if spatial else 4 * dim, spatial)
    return Block(mixer, ScaledResidual(mlp, dim, BatchNorm(dim), None))


class Stage(nn.Module):
    """Patches of the map before, with a learned vector added at each position, and blocks."""

    def __init__(self, c: VisformerConfig, i: int, in_dim: int) -> None:
        super().__init__()
        dim, patch = c.embed_dim[i], PATCHES[i]
        side = c.img_size // c.feature_info[i].stride
        self.patch_embed = ConvNorm(in_dim, dim, patch, patch, padding=0, bias=True)
        self.pos_embed = mx.zeros((1, dim, side, side))  # in timm's order
        self.blocks = [_block(dim, c.heads, spatial=i == 0) for _ in range(c.depth[i])]

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / patch, W / patch, C)."""
        x = self.patch_embed(x) + self.pos_embed.transpose(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return x


class Visformer(ImageModel):
    def __init__(self, config: VisformerConfig) -> None:
        super().__init__()
        c, last = config, config.embed_dim[-1]
        self.config = config
        self.stem = nn.Sequential(ConvNorm(3, c.stem, 7, 2), ReLU())
        in_dims = (c.stem, *c.embed_dim)
        self.stages = [Stage(c, i, in_dims[i]) for i in range(len(c.depth))]
        self.norm = BatchNorm(last)
        if c.num_classes:
            self.head = nn.Linear(last, c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to three NHWC maps."""
        return in_turn([self.stem], self.stages, x)

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)


_STAGES = tuple(
    row
    for i in range(len(PATCHES))
    for row in (
        (rf"^pos_embed{i + 1}$", f"stages.{i}.pos_embed"),
        (rf"^patch_embed{i + 1}\.proj\.", f"stages.{i}.patch_embed.conv."),
        (rf"^patch_embed{i + 1}\.norm\.", f"stages.{i}.patch_embed.bn."),
        (rf"^stage{i + 1}\.", f"stages.{i}.blocks."),
    )
)
_RENAMES = (
    (r"^stem\.0\.", "stem.layers.0.conv."),
    (r"^stem\.1\.", "stem.layers.0.bn."),
    *_STAGES,
    *BLOCK,
    (r"(blocks\.\d+)\.mlp\.conv", r"\1.mlp.m.conv"),
)


def _register(size: str, top1: float, params: int, macs: int, heads: int) -> None:
    name = f"visformer_{size}"
    register_model(
        ModelSpec(
            name=name,
            family="visformer",
            build=Visformer,
            config=VisformerConfig(
                stem=16 * heads // 3,
                embed_dim=(32 * heads, 64 * heads, 128 * heads),
                heads=heads,
            ),
            preprocess=Preprocess(crop_pct=0.9),
            checkpoints=(timm_weights(name, "in1k", "apache-2.0", top1),),
            fixed_size=True,
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


_register("tiny", 78.162, 10_320_000, 1_270_000_000, 3)
_register("small", 82.102, 40_220_000, 4_880_000_000, 6)
