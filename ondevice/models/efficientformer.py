"""EfficientFormer: pooling in maps, then attention over the positions of the last one.

Paper: https://arxiv.org/abs/2206.01191
Code: https://github.com/snap-research/EfficientFormer (Apache-2.0); names follow
timm/models/efficientformer.py
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..cpu import kernels
from ..nn.attention import BiasedAttention
from ..nn.batch_norm import BatchNorm
from ..nn.heads import DISTILLED, DistilledHead
from ..nn.image_model import ImageModel, in_turn
from ..nn.layers import Conv2d, ConvNorm, ReLU, fold_norm
from ..nn.residual import BLOCK, Block, PoolMixer, ScaledResidual
from ..nn.transformer import Mlp
from ..registry import ModelSpec, register_model, timm_weights

SIDE = 7  # positions a side of the last map, of 224 px: the biases are of these


@dataclass(frozen=True, kw_only=True)
class EfficientFormerConfig(PyramidConfig):
    depth: tuple[int, ...]
    attention_blocks: int  # at the end of the last stage

    @property
    def only_size(self) -> int:
        return SIDE * self.feature_info[-1].stride


class NormedMlp(nn.Module):
    """Two 1x1 convolutions, each with a batch norm, and a GELU between."""

    last = "fc2"

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1: nn.Module = Conv2d(dim, hidden, 1)
        self.norm1 = BatchNorm(hidden)
        self.fc2: nn.Module = Conv2d(hidden, dim, 1)
        self.norm2 = BatchNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        if "norm1" not in self:
            return self.fc2(kernels.gelu(self.fc1(x)))
        return self.norm2(self.fc2(kernels.gelu(self.norm1(self.fc1(x)))))

    def fuse(self) -> NormedMlp:
        """The same with the norms in the convolutions."""
        if "norm1" not in self:
            return self
        fused = copy.copy(self)
        fused.fc1 = fold_norm(self.fc1, fused.pop("norm1"))
        fused.fc2 = fold_norm(self.fc2, fused.pop("norm2"))
        return fused


class Flat(nn.Module):
    """Rows of a map one after the other: it stands where timm counts it among the blocks."""

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B, N, C)."""
        return x.flatten(1, 2)


def _pool_block(dim: int) -> Block:
    return Block(PoolMixer(dim), ScaledResidual(NormedMlp(dim, 4 * dim), dim))


def _attention_block(dim: int) -> Block:
    attn = BiasedAttention(dim, heads=8, key_dim=32, value_dim=128, side=SIDE)
    return Block(
        ScaledResidual(attn, dim, nn.LayerNorm(dim)),
        ScaledResidual(Mlp(dim, 4 * dim), dim, nn.LayerNorm(dim)),
    )


class Stage(nn.Module):
    """A step down, but for the first, and blocks of which the last may attend."""

    def __init__(self, in_dim: int, dim: int, pool: int, attention: int, down: bool) -> None:
        super().__init__()
        self.downsample = ConvNorm(in_dim, dim, 3, 2, bias=True) if down else nn.Identity()
        blocks: list[nn.Module] = [_pool_block(dim) for _ in range(pool)]
        if attention:
            blocks += [Flat(), *(_attention_block(dim) for _ in range(attention))]
        self.blocks = blocks

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / 2, W / 2, C), or the same size without a step down."""
        x = self.downsample(x)
        B, H, W, C = x.shape
        for block in self.blocks:
            x = block(x)
        return x.reshape(B, H, W, C)


class EfficientFormer(ImageModel):
    def __init__(self, config: EfficientFormerConfig) -> None:
        super().__init__()
        c, stem = config, config.embed_dim[0]
        self.config = config
        self.stem = [
            ConvNorm(3, stem // 2, 3, 2, bias=True),
            ReLU(),
            ConvNorm(stem // 2, stem, 3, 2, bias=True),
            ReLU(),
        ]
        self.stages = []
        for i, (in_dim, dim) in enumerate(pairwise([stem, *c.embed_dim])):
            attend = min(c.attention_blocks, c.depth[i]) if i == len(c.depth) - 1 else 0
            self.stages.append(Stage(in_dim, dim, c.depth[i] - attend, attend, down=i > 0))
        self.norm = nn.LayerNorm(c.embed_dim[-1])
        if c.num_classes:
            self.head = DistilledHead.linear(c.embed_dim[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.stem, self.stages, x)

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)


_RENAMES = (
    (r"^stem\.conv1\.", "stem.0.conv."),
    (r"^stem\.norm1\.", "stem.0.bn."),
    (r"^stem\.conv2\.", "stem.2.conv."),
    (r"^stem\.norm2\.", "stem.2.bn."),
    (r"downsample\.norm\.", "downsample.bn."),
    *BLOCK,
    *DISTILLED,
)


def _register(
    name: str, top1: float, params: int, macs: int, config: EfficientFormerConfig
) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="efficientformer",
            build=EfficientFormer,
            config=config,
            preprocess=Preprocess(crop_pct=0.95),
            checkpoints=(timm_weights(name, "snap_dist_in1k", "apache-2.0", top1),),
            fixed_size=True,
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


_register(
    "efficientformer_l1",
    80.498,
    params=12_290_000,
    macs=1_300_000_000,
    config=EfficientFormerConfig(
        embed_dim=(48, 96, 224, 448), depth=(3, 2, 6, 4), attention_blocks=1
    ),
)
_register(
    "efficientformer_l3",
    82.55,
    params=31_410_000,
    macs=3_930_000_000,
    config=EfficientFormerConfig(
        embed_dim=(64, 128, 320, 512), depth=(4, 4, 12, 6), attention_blocks=4
    ),
)
_register(
    "efficientformer_l7",
    83.382,
    params=82_230_000,
    macs=10_170_000_000,
    config=EfficientFormerConfig(
        embed_dim=(96, 192, 384, 768), depth=(6, 6, 18, 8), attention_blocks=8
    ),
)
