"""iFormer: large kernels first, then gated attention of a single head.

Paper: https://arxiv.org/abs/2501.15369
Code: https://github.com/ChuanyangZheng/iFormer (MIT); names follow timm/models/iformer.py
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..cpu import kernels
from ..nn.heads import DistilledHead
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import GELU, ConvNorm, NormLinear, Residual, normed_mlp, scale_output
from ..nn.residual import ScaledResidual
from ..registry import ModelSpec, register_model, timm_weights


@dataclass(frozen=True, kw_only=True)
class IFormerConfig(PyramidConfig):
    depth: tuple[int, ...]
    attention: tuple[int, ...]  # how many groups of three blocks of a stage attend
    key_share: tuple[int, ...] = (0, 0, 2, 4)  # channels over those of queries and keys
    conv_ratio: int = 4
    mlp_ratio: int = 3
    layer_scale: float | None = None
    distilled: bool = False


class GatedAttention(nn.Module):
    """Attention of one head over a map, times a gate for each element."""

    last = "proj"

    def __init__(self, dim: int, key_dim: int) -> None:
        super().__init__()
        self.scale = key_dim**-0.5
        self.q: nn.Module = ConvNorm(dim, key_dim)
        self.k = ConvNorm(dim, key_dim)
        self.v_gate = ConvNorm(dim, 2 * dim)
        self.proj = ConvNorm(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, C = x.shape
        v, gate = mx.split(mx.sigmoid(self.v_gate(x)), 2, axis=-1)
        q, k, v = (y.reshape(B, H * W, -1) for y in (self.q(x), self.k(x), v))
        attn = kernels.softmax((q if self.scale == 1 else q * self.scale) @ k.swapaxes(1, 2))
        return self.proj((attn @ v).reshape(B, H, W, C) * gate)

    def fuse(self) -> GatedAttention:
        """The same with the scale of q in its convolution."""
        fused = copy.copy(self)
        fused.q, fused.scale = scale_output(self.q, mx.array(self.scale)), 1.0
        return fused


def _conv_block(c: IFormerConfig, dim: int) -> nn.Module:
    mlp = normed_mlp(dim, c.conv_ratio * dim)
    depthwise = ConvNorm(dim, dim, 7, groups=dim)
    return ScaledResidual(nn.Sequential(depthwise, *mlp.layers), dim, scale=c.layer_scale)


def _attention_blocks(c: IFormerConfig, dim: int, key_dim: int) -> list[nn.Module]:
    """Positions, attention, channels."""
    return [
        Residual(ConvNorm(dim, dim, 3, groups=dim)),
        ScaledResidual(GatedAttention(dim, key_dim), dim, scale=c.layer_scale),
        ScaledResidual(normed_mlp(dim, c.mlp_ratio * dim), dim, scale=c.layer_scale),
    ]


class Stage(DownStage):
    """A step down, but for the first; convolutions, attention and, if both, a convolution."""

    def __init__(self, config: IFormerConfig, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        c, groups = config, config.attention[i]
        self.downsample = ConvNorm(in_dim, dim, 3, 2) if in_dim != dim else nn.Identity()
        convs = [_conv_block(c, dim) for _ in range(c.depth[i] - 3 * groups)]
        behind = bool(groups and convs)
        blocks = convs[: len(convs) - behind]
        for _ in range(groups):
            blocks += _attention_blocks(c, dim, dim // c.key_share[i])
        self.blocks = [*blocks, *convs[len(convs) - behind :]]


class IFormer(ImageModel):
    def __init__(self, config: IFormerConfig) -> None:
        super().__init__()
        c, stem = config, config.embed_dim[0]
        self.config = config
        narrow, wide = stem // 2, stem // 2 * 4
        convs = ConvNorm(3, narrow, 5, 2), ConvNorm(narrow, wide, 5, 2), ConvNorm(wide, stem)
        self.stem = [convs[0], GELU(), convs[1], GELU(), convs[2]]
        dims = pairwise([stem, *c.embed_dim])
        self.stages = [Stage(c, i, *pair) for i, pair in enumerate(dims)]
        if c.num_classes:
            make = DistilledHead.normed if c.distilled else NormLinear
            self.head = make(c.embed_dim[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.stem, self.stages, x)


def _renames(distilled: bool) -> tuple[tuple[str, str], ...]:
    return (
        *((rf"^stem\.conv{i + 1}\.", f"stem.{2 * i}.") for i in range(3)),
        (r"\.c\.weight$", ".conv.weight"),
        (r"\.mixer\.gamma$", ".layer_scale"),
        (r"\.(mixer|cpe)\.(\d)\.", r".m.layers.\2."),  # without the wrapper "module"
        (r"\.(mixer|cpe)\.", ".m."),
        (r"^head\.(head\w*)\.l\.", r"head.\1.linear."),
        *(() if distilled else ((r"^head\.head\.", "head."),)),
    )


def _register(
    name: str,
    config: IFormerConfig,
    params: int,
    macs: int,
    top1: float | None,
) -> None:
    weights = () if name == "iformer_l2" else (timm_weights(name, "in1k", "mit", top1),)
    register_model(
        ModelSpec(
            name=name,
            family="iformer",
            build=IFormer,
            config=config,
            preprocess=Preprocess(),
            checkpoints=weights,
            renames=_renames(config.distilled),
            params=params,
            macs=macs,
        )
    )


def _config(width: tuple[int, ...], depth: tuple[int, ...], *groups: int) -> IFormerConfig:
    return IFormerConfig(embed_dim=width, depth=depth, attention=(0, 0, *groups))


_M = _config((48, 96, 192, 384), (2, 2, 22, 6), 4, 2)
_L = _config((48, 96, 256, 384), (2, 2, 33, 6), 8, 2)
_L2 = _config((64, 128, 256, 512), (3, 3, 46, 9), 11, 3)
_T = replace(_config((32, 64, 128, 256), (2, 2, 16, 6), 3, 2), conv_ratio=3, mlp_ratio=2)
_S = _config((32, 64, 176, 320), (2, 2, 19, 6), 3, 2)
_H = replace(
    _config((96, 192, 384, 768), (5, 5, 60, 18), 15, 6),
    key_share=(0, 0, 1, 1),
    mlp_ratio=4,
    layer_scale=1e-6,
)

_register("iformer_t", _T, 2_890_000, 530_000_000, 74.1)
_register("iformer_s", _S, 6_560_000, 1_090_000_000, 78.8)
_register("iformer_m", _M, 8_910_000, 1_640_000_000, 80.4)
_register("iformer_l", _L, 14_780_000, 2_630_000_000, 81.9)
_register("iformer_l2", _L2, 24_520_000, 4_500_000_000, None)
_register("iformer_h", _H, 99_600_000, 15_500_000_000, 84.8)
_register("iformer_m_distilled", replace(_M, distilled=True), 9_290_000, 1_640_000_000, 81.1)
_register("iformer_l_distilled", replace(_L, distilled=True), 15_170_000, 2_630_000_000, None)
_register("iformer_l2_distilled", replace(_L2, distilled=True), 25_030_000, 4_500_000_000, 83.9)
