"""EdgeNeXt: large kernels, and attention between channels at the end of each stage.

Paper: https://arxiv.org/abs/2206.10589
Code: https://github.com/mmaaz60/EdgeNeXt (MIT); names follow timm/models/edgenext.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..cpu import kernels
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import Conv2d, unit
from ..nn.residual import ScaledResidual
from ..nn.transformer import Mlp
from ..registry import Checkpoint, ModelSpec, register_model, timm_weights

WAVES = 32  # of the positions' code, in each direction


@dataclass(frozen=True, kw_only=True)
class EdgeNeXtConfig(PyramidConfig):
    depth: tuple[int, ...]
    heads: int = 8
    attention: tuple[int, ...] = (0, 1, 1, 1)  # blocks of a stage that attend, the last ones
    splits: tuple[int, ...] = (2, 2, 3, 4)  # of the channels of a block that attends
    kernels: tuple[int, ...] = (3, 5, 7, 9)
    positions: tuple[bool, ...] = (False, True, False, False)
    overlap: bool = False  # a stem with a large kernel, and steps down in the blocks
    bias: bool = True  # of convolutions

    @property
    def stride(self) -> int:
        return self.feature_info[-1].stride


def _norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6)


def _depthwise(in_dim: int, dim: int, kernel: int, stride: int, bias: bool) -> Conv2d:
    return Conv2d(in_dim, dim, kernel, stride, kernel // 2, groups=in_dim, bias=bias)


class ConvBlock(nn.Module):
    """A depthwise convolution, whose result the residual is of where it makes a step down."""

    def __init__(self, in_dim: int, dim: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__()
        groups = math.gcd(in_dim, dim)
        self.conv_dw = Conv2d(
            in_dim, dim, kernel, stride, kernel // 2, groups=groups, bias=bias
        )
        self.step = stride > 1 or in_dim != dim
        self.mlp = ScaledResidual(Mlp(dim, 4 * dim), dim, _norm(dim))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, C)."""
        y = self.conv_dw(x)
        return self.mlp(y) if self.step else x + self.mlp.branch(y)


class ChannelAttention(nn.Module):
    """Attention of channels to each other, by how alike they are over all positions."""

    last = "proj"

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = mx.ones((heads, 1, 1))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, N, C) to the same shape."""
        B, N, C = x.shape
        q, k, v = (
            y.swapaxes(1, 2).reshape(B, self.heads, -1, N)
            for y in mx.split(self.qkv(x), 3, axis=-1)
        )
        scores = unit(q) @ unit(k).swapaxes(2, 3) * self.temperature
        y = kernels.softmax(scores) @ v
        return self.proj(y.reshape(B, C, N).swapaxes(1, 2))


class Positions(nn.Module):
    """A code of each position: waves of several lengths in y and x, projected."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token_projection = Conv2d(2 * WAVES, dim, 1)

    def __call__(self, height: int, width: int) -> mx.array:
        """(1, H, W, C)."""
        y, x = _waves(height)[:, None], _waves(width)[None]
        shape = (height, width, WAVES)
        code = mx.concatenate([mx.broadcast_to(y, shape), mx.broadcast_to(x, shape)], axis=-1)
        return self.token_projection(code[None].astype(self.token_projection.weight.dtype))


def _waves(size: int) -> mx.array:
    """(size, WAVES): sine and cosine in turn, of ever longer waves."""
    place = mx.arange(1, size + 1) / (size + 1e-6) * (2 * math.pi)
    lengths = 10000 ** (mx.arange(0, WAVES, 2) / WAVES)
    angle = place[:, None] / lengths
    return mx.stack([mx.sin(angle), mx.cos(angle)], axis=-1).reshape(size, WAVES)


class SplitBlock(nn.Module):
    """Convolutions of parts of the channels, each with the part before it; then attention."""

    def __init__(self, c: EdgeNeXtConfig, i: int) -> None:
        super().__init__()
        dim, width = c.embed_dim[i], math.ceil(c.embed_dim[i] / c.splits[i])
        self.width = width
        self.convs = [_depthwise(width, width, 3, 1, c.bias) for _ in range(c.splits[i] - 1)]
        if c.positions[i]:
            self.pos_embd = Positions(dim)
        self.xca = ScaledResidual(ChannelAttention(dim, c.heads), dim, _norm(dim))
        self.mlp = ScaledResidual(Mlp(dim, 4 * dim), dim, _norm(dim))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, C = x.shape
        first, *parts = mx.split(x, [self.width * (i + 1) for i in range(len(self.convs))], -1)
        done = [self.convs[0](first)]
        for conv, part in zip(self.convs[1:], parts, strict=False):
            done.append(conv(done[-1] + part))
        y = mx.concatenate([*done, parts[-1]], axis=-1)
        y = y + self.pos_embd(H, W) if "pos_embd" in self else y
        y = self.xca(y.reshape(B, H * W, C)).reshape(B, H, W, C)
        return x + self.mlp.branch(y)


class Stage(DownStage):
    """A step down, but for the first, and blocks, of which the last attend."""

    def __init__(self, c: EdgeNeXtConfig, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if i and not c.overlap:
            down = Conv2d(in_dim, dim, 2, 2, bias=c.bias)
            self.downsample, in_dim = nn.Sequential(_norm(in_dim), down), dim
        self.blocks: list[nn.Module] = []
        for j in range(c.depth[i]):
            if j >= c.depth[i] - c.attention[i]:
                self.blocks.append(SplitBlock(c, i))
            else:
                stride = 2 if i and not j and c.overlap else 1
                self.blocks.append(ConvBlock(in_dim, dim, c.kernels[i], stride, c.bias))
            in_dim = dim


class EdgeNeXt(ImageModel):
    def __init__(self, config: EdgeNeXtConfig) -> None:
        super().__init__()
        c, stem, last = config, config.embed_dim[0], config.embed_dim[-1]
        self.config = config
        kernel = 9 if c.overlap else 4
        padding = kernel // 2 if c.overlap else 0
        self.stem = [Conv2d(3, stem, kernel, 4, padding, bias=c.bias), _norm(stem)]
        pairs = pairwise([stem, *c.embed_dim])
        self.stages = [Stage(c, i, *dims) for i, dims in enumerate(pairs)]
        self.norm = _norm(last)
        if c.num_classes:
            self.head = nn.Linear(last, c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.stem, self.stages, x)

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) last map to (B, C), normalized."""
        return self.norm(super().pool(x))


_RENAMES = (
    (r"\.downsample\.(\d)\.", r".downsample.layers.\1."),
    (r"(blocks\.\d+)\.norm\.", r"\1.mlp.norm."),
    (r"(blocks\.\d+)\.mlp\.fc", r"\1.mlp.m.fc"),
    (r"(blocks\.\d+)\.gamma$", r"\1.mlp.layer_scale"),
    (r"\.gamma_xca$", ".xca.layer_scale"),
    (r"\.norm_xca\.", ".xca.norm."),
    (r"\.xca\.(temperature|qkv|proj)", r".xca.m.\1"),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
)


def _register(
    name: str, *checkpoints: Checkpoint, config: EdgeNeXtConfig, params: int, macs: int
) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="edgenext",
            build=EdgeNeXt,
            config=config,
            preprocess=Preprocess(size=256, crop_pct=0.9),
            checkpoints=checkpoints,
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


_WIDER = Preprocess(size=256, crop_pct=0.95)

_register(
    "edgenext_xx_small",
    timm_weights("edgenext_xx_small", "in1k", "mit", 71.23),
    config=EdgeNeXtConfig(embed_dim=(24, 48, 88, 168), depth=(2, 2, 6, 2), heads=4),
    params=1_330_000,
    macs=260_000_000,
)
_register(
    "edgenext_x_small",
    timm_weights("edgenext_x_small", "in1k", "mit", 74.96),
    config=EdgeNeXtConfig(embed_dim=(32, 64, 100, 192), depth=(3, 3, 9, 3), heads=4),
    params=2_340_000,
    macs=540_000_000,
)
_register(
    "edgenext_small",
    timm_weights("edgenext_small", "usi_in1k", "mit", 81.07, preprocess=_WIDER),
    config=EdgeNeXtConfig(embed_dim=(48, 96, 160, 304), depth=(3, 3, 9, 3)),
    params=5_590_000,
    macs=1_260_000_000,
)
_register(
    "edgenext_base",
    timm_weights("edgenext_base", "usi_in1k", "mit", 83.68, preprocess=_WIDER),
    timm_weights("edgenext_base", "in21k_ft_in1k", "mit", 83.31, preprocess=_WIDER),
    config=EdgeNeXtConfig(embed_dim=(80, 160, 288, 584), depth=(3, 3, 9, 3)),
    params=18_510_000,
    macs=3_850_000_000,
)
_register(
    "edgenext_small_rw",
    timm_weights("edgenext_small_rw", "sw_in1k", "mit"),
    config=EdgeNeXtConfig(
        embed_dim=(48, 96, 192, 384), depth=(3, 3, 9, 3), overlap=True, bias=False
    ),
    params=7_830_000,
    macs=1_580_000_000,
)
