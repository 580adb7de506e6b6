"""MobileViT and MobileViTv2: convolutions, and attention between the same pixel of all patches.

Papers: https://arxiv.org/abs/2110.02178, https://arxiv.org/abs/2206.02680
Code: https://github.com/apple/ml-cvnets; names follow timm/models/mobilevit.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..cpu import kernels
from ..nn.drop_path import DropPath
from ..nn.image_model import ImageModel, in_turn
from ..nn.layers import Conv2d, ConvMlp, ConvNorm, GroupNorm1, SiLU, make_divisible
from ..nn.transformer import Block
from ..registry import Checkpoint, ModelSpec, register_model, timm_weights

PATCH = 2  # pixels a side
FIRST = 2  # the stage from which on there are transformers


@dataclass(frozen=True, kw_only=True)
class MobileViTConfig(ModelConfig):
    stem: int
    embed_dim: tuple[int, ...]
    depth: tuple[int, ...]  # convolutional blocks of each stage
    ratio: int  # of the hidden channels of these blocks to those that come in
    transformer_dim: tuple[int, int, int]
    transformer_depth: tuple[int, int, int] = (2, 4, 3)
    final_dim: int = 0  # channels of a last convolution, which belongs to the last stage
    separable: bool = False  # attention as in the second version

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        *dims, last = self.embed_dim
        widths = (*dims, self.final_dim or last)
        return tuple(FeatureInfo(i, c, 2 * 2**i) for i, c in enumerate(widths))

    @property
    def stride(self) -> int:
        return self.feature_info[-1].stride


def _act(conv: nn.Module, x: mx.array) -> mx.array:
    y = conv(x)
    return y * mx.sigmoid(y)


class Bottleneck(DropPath):
    """An inverted bottleneck, with a residual where shapes allow one."""

    def __init__(self, in_dim: int, dim: int, stride: int, ratio: int) -> None:
        super().__init__()
        hidden = make_divisible(ratio * in_dim)
        self.residual = stride == 1 and in_dim == dim
        self.conv1_1x1 = ConvNorm(in_dim, hidden)
        self.conv2_kxk = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3_1x1 = ConvNorm(hidden, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, C), halves rounded up."""
        y = self.conv3_1x1(_act(self.conv2_kxk, _act(self.conv1_1x1, x)))
        return x + self.dropped(y) if self.residual else y


def _resized(x: mx.array, height: int, width: int, *, align_corners: bool) -> mx.array:
    """(B, height, width, C), linearly."""
    if x.shape[1:3] == (height, width):
        return x
    # A little more than the ratio: MLX rounds the size down.
    scale = ((height + 1e-9) / x.shape[1], (width + 1e-9) / x.shape[2])
    return nn.Upsample(scale, mode="linear", align_corners=align_corners)(x)


def _whole_patches(x: mx.array) -> tuple[int, int]:
    """Height and width, each rounded up to whole patches."""
    return x.shape[1] + x.shape[1] % PATCH, x.shape[2] + x.shape[2] % PATCH


class MobileViTBlock(nn.Module):
    """A convolution, a transformer for each pixel of all patches, and both maps fused."""

    def __init__(self, dim: int, inner: int, depth: int) -> None:
        super().__init__()
        self.conv_kxk = ConvNorm(dim, dim, 3)
        self.conv_1x1 = Conv2d(dim, inner, 1, bias=False)
        self.transformer = [Block(inner, 4, 1e-5, ratio=2, act=SiLU()) for _ in range(depth)]
        self.norm = nn.LayerNorm(inner)
        self.conv_proj = ConvNorm(inner, dim)
        self.conv_fusion = ConvNorm(2 * dim, dim, 3)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        y = self.conv_1x1(_act(self.conv_kxk, x))
        y = _resized(y, *_whole_patches(y), align_corners=False)
        B, H, W, C = y.shape
        rows, columns, area = H // PATCH, W // PATCH, PATCH**2
        y = y.reshape(B, rows, PATCH, columns, PATCH, C).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(B, rows, columns, area * C)
        y = y.reshape(B, -1, area, C).swapaxes(1, 2).reshape(B * area, -1, C)
        for block in self.transformer:
            y = block(y)
        y = self.norm(y).reshape(B, area, -1, C).swapaxes(1, 2)
        y = y.reshape(B, rows, columns, area * C)
        y = y.reshape(B, rows, columns, PATCH, PATCH, C).transpose(0, 1, 3, 2, 4, 5)
        y = _resized(y.reshape(B, H, W, C), *x.shape[1:3], align_corners=False)
        y = _act(self.conv_proj, y)
        return _act(self.conv_fusion, mx.concatenate([x, y], axis=-1))


class LinearAttention(nn.Module):
    """One sum of all keys, each weighted by a score of its own, gates every value."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.qkv_proj = Conv2d(dim, 1 + 2 * dim, 1)
        self.out_proj = Conv2d(dim, dim, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, P, N, C) to the same shape: along N, for each of P by itself."""
        score, key, value = mx.split(self.qkv_proj(x), [1, 1 + self.dim], axis=-1)
        weight = kernels.softmax(score[..., 0])[..., None]
        context = (key * weight).sum(axis=2, keepdims=True)
        return self.out_proj(kernels.relu(value) * context)


class LinearBlock(DropPath):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm1(dim)
        self.attn = LinearAttention(dim)
        self.norm2 = GroupNorm1(dim)
        self.mlp = ConvMlp(dim, 2 * dim, SiLU())

    def __call__(self, x: mx.array) -> mx.array:
        """(B, P, N, C) to the same shape."""
        x = x + self.dropped(self.attn(self.norm1(x)))
        return x + self.dropped(self.mlp(self.norm2(x)))


class MobileViTv2Block(nn.Module):
    """A convolution, then linear attention for each pixel of all patches."""

    def __init__(self, dim: int, inner: int, depth: int) -> None:
        super().__init__()
        self.conv_kxk = ConvNorm(dim, dim, 3, groups=dim)
        self.conv_1x1 = Conv2d(dim, inner, 1, bias=False)
        self.transformer = [LinearBlock(inner) for _ in range(depth)]
        self.norm = GroupNorm1(inner)
        self.conv_proj = ConvNorm(inner, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same, in whole patches."""
        x = _resized(x, *_whole_patches(x), align_corners=True)
        y = self.conv_1x1(_act(self.conv_kxk, x))
        B, H, W, C = y.shape
        rows, columns = H // PATCH, W // PATCH
        # A pixel's place in its patch counts as the innermost of the channels, in between.
        y = y.reshape(B, rows, PATCH, columns, PATCH, C).transpose(0, 1, 3, 5, 2, 4)
        y = y.reshape(B, rows, columns, C * PATCH**2)
        y = y.reshape(B, rows * columns, C, PATCH**2).transpose(0, 3, 1, 2)
        for block in self.transformer:
            y = block(y)
        y = self.norm(y).transpose(0, 2, 3, 1).reshape(B, rows, columns, C * PATCH**2)
        y = y.reshape(B, rows, columns, C, PATCH, PATCH).transpose(0, 1, 4, 2, 5, 3)
        return self.conv_proj(y.reshape(B, H, W, C))


def _stage(c: MobileViTConfig, i: int) -> nn.Sequential:
    make: Callable[..., nn.Module] = MobileViTv2Block if c.separable else MobileViTBlock
    in_dim, dim = (c.stem, *c.embed_dim)[i : i + 2]
    blocks: list[nn.Module] = []
    for j in range(c.depth[i]):
        blocks.append(Bottleneck(in_dim, dim, 2 if i and not j else 1, c.ratio))
        in_dim = dim
    if i >= FIRST:
        blocks.append(make(dim, c.transformer_dim[i - FIRST], c.transformer_depth[i - FIRST]))
    return nn.Sequential(*blocks)


class MobileViT(ImageModel):
    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__()
        c, last = config, config.feature_info[-1].channels
        self.config = config
        self.stem = [ConvNorm(3, c.stem, 3, 2), SiLU()]
        self.stages = [_stage(c, i) for i in range(len(c.depth))]
        if c.final_dim:
            self.final_conv = ConvNorm(c.embed_dim[-1], last)
        if c.num_classes:
            self.head = nn.Linear(last, c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to five NHWC maps."""
        *maps, last = in_turn(self.stem, self.stages, x)
        return [*maps, _act(self.final_conv, last) if "final_conv" in self else last]


def _register(name: str, *checkpoints: Checkpoint, crop_pct: float, **facts: Any) -> None:
    register_model(
        ModelSpec(
            name=name,
            family=name.partition("_")[0],
            build=MobileViT,
            preprocess=Preprocess(size=256, crop_pct=crop_pct, mean=(0, 0, 0), std=(1, 1, 1)),
            checkpoints=checkpoints,
            renames=(
                (r"^stem\.(conv|bn)\.", r"stem.0.\1."),
                (r"^(stages\.\d+)\.(\d+)\.", r"\1.layers.\2."),
                (r"^head\.fc\.", "head."),
            ),
            **facts,
        )
    )


def _first(
    name: str,
    top1: float,
    embed_dim: tuple[int, ...],
    inner: tuple[int, int, int],
    final_dim: int,
    params: int,
    macs: int,
    ratio: int = 4,
) -> None:
    config = MobileViTConfig(
        stem=16,
        embed_dim=embed_dim,
        depth=(1, 3, 1, 1, 1),
        ratio=ratio,
        transformer_dim=inner,
        final_dim=final_dim,
    )
    weights = timm_weights(name, "cvnets_in1k", "cvnets-license", top1)
    _register(name, weights, crop_pct=0.9, config=config, params=params, macs=macs)


_first(
    "mobilevit_xxs",
    68.932,
    (16, 24, 48, 64, 80),
    (64, 80, 96),
    320,
    params=1_270_000,
    macs=420_000_000,
    ratio=2,
)
_first(
    "mobilevit_xs",
    74.636,
    (32, 48, 64, 80, 96),
    (96, 120, 144),
    384,
    params=2_320_000,
    macs=1_050_000_000,
)
_first(
    "mobilevit_s",
    78.312,
    (32, 64, 96, 128, 160),
    (144, 192, 240),
    640,
    params=5_580_000,
    macs=2_030_000_000,
)

_LARGE = Preprocess(size=384, crop_pct=1, mean=(0, 0, 0), std=(1, 1, 1))
_TAGS = ("cvnets_in1k", "cvnets_in22k_ft_in1k", "cvnets_in22k_ft_in1k_384")


def _second(percent: int, params: int, macs: int, *top1: float | None) -> None:
    """``percent`` of the channels; ``top1`` of weights of _TAGS, as many as there are."""
    name = f"mobilevitv2_{percent:03}"
    dims = tuple(n * percent // 100 for n in (64, 128, 256, 384, 512))
    config = MobileViTConfig(
        stem=32 * percent // 100,
        embed_dim=dims,
        depth=(1, 2, 1, 1, 1),
        ratio=2,
        transformer_dim=(dims[2] // 2, dims[3] // 2, dims[4] // 2),
        separable=True,
    )
    weights = (
        timm_weights(
            name,
            tag,
            "cvnets-license",
            correct,
            preprocess=_LARGE if tag.endswith("_384") else None,
        )
        for tag, correct in zip(_TAGS, top1, strict=False)
    )
    _register(name, *weights, crop_pct=0.888, config=config, params=params, macs=macs)


_second(50, 1_370_000, 480_000_000, 70.138)
_second(75, 2_870_000, 1_050_000_000, 75.608)
_second(100, 4_900_000, 1_840_000_000, 78.076)
_second(125, 7_480_000, 2_860_000_000, 79.68)
_second(150, 10_590_000, 4_090_000_000, 80.37, 81.488, 82.586)
_second(175, 14_250_000, 5_540_000_000, 80.86, 81.938, None)
_second(200, 18_450_000, 7_220_000_000, 81.134, 82.332, 83.4)
