"""Next-ViT: convolutions of a few channels each, and attention at the end of each stage.

Paper: https://arxiv.org/abs/2207.05501
Code: https://github.com/bytedance/Next-ViT (Apache-2.0); names follow timm/models/nextvit.py
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..cpu import kernels
from ..nn.batch_norm import BatchNorm
from ..nn.image_model import ImageModel, in_turn
from ..nn.layers import (
    Conv2d,
    ConvMlp,
    ConvNorm,
    ReLU,
    Residual,
    affine_input,
    make_divisible,
    norm_affine,
    scale_output,
)
from ..nn.residual import ScaledResidual
from ..registry import ModelSpec, register_model, timm_weights

HEAD_DIM = 32
WIDTHS = ((96, 96), (192, 256), (384, 512), (768, 1024))  # of a stage's blocks, and its last
POOLS = (8, 4, 2, 1)  # keys and values are means over so many positions, squared
GROUP = 5  # blocks of the third stage, of which the last attends


@dataclass(frozen=True, kw_only=True)
class NextViTConfig(ModelConfig):
    depth: tuple[int, int, int, int]

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, w[-1], 4 * 2**i) for i, w in enumerate(WIDTHS))

    @property
    def stride(self) -> int:
        return self.feature_info[-1].stride

    def attends(self, stage: int, block: int) -> bool:
        """Whether this block of a stage mixes all positions."""
        if stage == 2:
            return block % GROUP == GROUP - 1
        return stage > 0 and block == self.depth[stage] - 1


class PooledAttention(nn.Module):
    """Attention to means of ``pool * pool`` positions, taken in the order of rows."""

    first = ("q", "k", "v")
    last = "proj"

    def __init__(self, dim: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.scale = HEAD_DIM**-0.5
        self.q: nn.Module = nn.Linear(dim, dim)
        self.k: nn.Module = nn.Linear(dim, dim)
        self.v: nn.Module = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        if pool > 1:
            self.norm = BatchNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, C = x.shape
        x = means = x.reshape(B, -1, C)
        if self.pool > 1:
            means = x.reshape(B, -1, self.pool**2, C).mean(axis=2)
            means = self.norm(means) if "norm" in self else means
        q, k, v = (
            y.reshape(B, -1, C // HEAD_DIM, HEAD_DIM).swapaxes(1, 2)
            for y in (self.q(x), self.k(means), self.v(means))
        )
        attn = kernels.softmax((q if self.scale == 1 else q * self.scale) @ k.swapaxes(2, 3))
        return self.proj((attn @ v).swapaxes(1, 2).reshape(B, H, W, C))

    def fuse(self) -> PooledAttention:
        """The same with the norm in keys and values and the scale in queries."""
        fused = copy.copy(self)
        fused.q, fused.scale = scale_output(self.q, mx.array(self.scale)), 1.0
        if "norm" in self:
            affine = norm_affine(fused.pop("norm"))
            fused.k, fused.v = (affine_input(m, *affine) for m in (self.k, self.v))
        return fused


class ConvAttention(nn.Module):
    """A 3x3 convolution in groups of channels, then a 1x1 of all."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = ConvNorm(dim, dim, 3, groups=dim // HEAD_DIM)
        self.projection = Conv2d(dim, dim, 1, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.projection(kernels.relu(self.conv(x)))


def _patch_embed(in_dim: int, dim: int, stride: int) -> nn.Module:
    if stride == 1 and in_dim == dim:
        return nn.Identity()
    pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, ConvNorm(in_dim, dim))


class ConvBlock(nn.Module):
    """A convolution in groups, then an MLP."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.patch_embed = _patch_embed(in_dim, dim, stride)
        self.mhca = Residual(ConvAttention(dim))
        self.mlp = ScaledResidual(ConvMlp(dim, 3 * dim, ReLU()), dim, BatchNorm(dim), None)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, C)."""
        return self.mlp(self.mhca(self.patch_embed(x)))


class TransformerBlock(nn.Module):
    """Attention in three quarters of the channels, then a convolution in the others."""

    def __init__(self, in_dim: int, dim: int, stride: int, pool: int) -> None:
        super().__init__()
        attn = make_divisible(int(0.75 * dim), 32)
        conv = dim - attn
        self.patch_embed = _patch_embed(in_dim, attn, stride)
        self.mhsa = ScaledResidual(PooledAttention(attn, pool), attn, BatchNorm(attn), None)
        self.projection = ConvNorm(attn, conv)
        self.mhca = Residual(ConvAttention(conv))
        self.mlp = ScaledResidual(ConvMlp(dim, 2 * dim, ReLU()), dim, BatchNorm(dim), None)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, C)."""
        x = self.mhsa(self.patch_embed(x))
        y = self.mhca(self.projection(x))
        return self.mlp(mx.concatenate([x, y], axis=-1))


class Stage(nn.Module):
    def __init__(self, config: NextViTConfig, i: int, in_dim: int) -> None:
        super().__init__()
        self.blocks: list[nn.Module] = []
        for j in range(config.depth[i]):
            attends, stride = config.attends(i, j), 2 if i and not j else 1
            dim = WIDTHS[i][attends]
            block = (
                TransformerBlock(in_dim, dim, stride, POOLS[i])
                if attends
                else ConvBlock(in_dim, dim, stride)
            )
            self.blocks.append(block)
            in_dim = dim

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / 2, W / 2, C); the first stage keeps the size."""
        for block in self.blocks:
            x = block(x)
        return x


class NextViT(ImageModel):
    def __init__(self, config: NextViTConfig) -> None:
        super().__init__()
        self.config = config
        widths, strides = ((3, 64), (64, 32), (32, 64), (64, 64)), (2, 1, 1, 2)
        self.stem = [
            nn.Sequential(ConvNorm(*width, 3, stride), ReLU())
            for width, stride in zip(widths, strides, strict=True)
        ]
        in_dims = (widths[-1][-1], *(w[-1] for w in WIDTHS))
        self.stages = [Stage(config, i, in_dims[i]) for i in range(len(config.depth))]
        self.norm = BatchNorm(WIDTHS[-1][-1])
        if config.num_classes:
            self.head = nn.Linear(WIDTHS[-1][-1], config.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.stem, self.stages, x)

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)


_RENAMES = (
    (r"^stem\.(\d)\.conv\.", r"stem.\1.layers.0.conv."),
    (r"^stem\.(\d)\.norm\.", r"stem.\1.layers.0.bn."),
    (r"\.patch_embed\.conv\.", ".patch_embed.layers.1.conv."),
    (r"\.patch_embed\.norm\.", ".patch_embed.layers.1.bn."),
    (r"\.projection\.norm\.", ".projection.bn."),
    (r"\.mhca\.group_conv3x3\.", ".mhca.m.conv.conv."),
    (r"\.mhca\.norm\.", ".mhca.m.conv.bn."),
    (r"\.mhca\.projection\.", ".mhca.m.projection."),
    (r"(blocks\.\d+)\.norm1\.", r"\1.mhsa.norm."),
    (r"(blocks\.\d+)\.norm2?\.", r"\1.mlp.norm."),
    (r"\.e_mhsa\.", ".mhsa.m."),
    (r"\.mlp\.fc", ".mlp.m.fc"),
    (r"^head\.fc\.", "head."),
)
_LARGE = Preprocess(size=384, crop_pct=1)


def _register(name: str, top1: tuple[float, ...], depth: int, params: int, macs: int) -> None:
    """``top1`` of weights trained on ImageNet-1k and after 6 million other images, and both
    at 384 px."""
    tags = ("bd_in1k", "bd_ssld_6m_in1k", "bd_in1k_384", "bd_ssld_6m_in1k_384")
    register_model(
        ModelSpec(
            name=name,
            family="nextvit",
            build=NextViT,
            config=NextViTConfig(depth=(3, 4, depth, 3)),
            preprocess=Preprocess(crop_pct=0.95),
            checkpoints=tuple(
                timm_weights(
                    name,
                    tag,
                    "apache-2.0",
                    percent,
                    preprocess=_LARGE if tag.endswith("_384") else None,
                )
                for tag, percent in zip(tags, top1, strict=True)
            ),
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


_register("nextvit_small", (82.5, 84.8, 83.6, 85.8), 10, 31_760_000, 5_800_000_000)
_register("nextvit_base", (83.2, 85.1, 84.3, 86.1), 20, 44_820_000, 8_290_000_000)
_register("nextvit_large", (83.6, 85.4, 84.7, 86.4), 30, 57_870_000, 10_780_000_000)
