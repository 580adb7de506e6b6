"""Swin: attention in windows, which every second block shifts by half of one.

Papers: https://arxiv.org/abs/2103.14030, https://arxiv.org/abs/2111.14725 (s3)
Code: https://github.com/microsoft/Swin-Transformer (MIT); names follow
timm/models/swin_transformer.py
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..config.labels import IMAGENET1K
from ..nn.attention import OffsetBias
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.patch_embed import PatchEmbed
from ..nn.residual import ScaledResidual
from ..nn.transformer import Mlp, SelfAttention
from ..nn.windows import from_windows, pad_to_multiple, to_windows
from ..registry import ModelSpec, register_model, timm_weights

PATCH = 4  # pixels a side of the first map's positions
FAR = -100.0  # added to scores of positions that were not neighbours before the shift


@dataclass(frozen=True, kw_only=True)
class SwinConfig(ModelConfig):
    embed_dim: int
    depth: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...] = (7, 7, 7, 7)
    img_size: int = 224

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        dims = (self.embed_dim * 2**i for i in range(len(self.depth)))
        return tuple(FeatureInfo(i, c, PATCH * 2**i) for i, c in enumerate(dims))

    @property
    def only_size(self) -> int:
        return self.img_size

    def side(self, stage: int) -> int:
        """Positions a side of a stage's map."""
        return -(-(self.img_size // PATCH) // 2**stage)


class WindowAttention(nn.Module):
    """Attention in windows of a map that is shifted by ``shift`` rows and columns."""

    last = "attn"

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.attn = SelfAttention(dim, heads)
        self.bias = OffsetBias(heads, window)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, _ = x.shape
        x = pad_to_multiple(_rolled(x, self.shift), self.window)
        height, width = x.shape[1:3]
        scores = self.bias()
        if self.shift:
            scores = scores + self.apart(height, width)[:, None]
            scores = mx.repeat(scores, B, axis=0) if B > 1 else scores
        y = from_windows(self.attn(to_windows(x, self.window), scores), height, width)
        y = y if (height, width) == (H, W) else y[:, :H, :W]
        return _rolled(y, -self.shift)

    def apart(self, height: int, width: int) -> mx.array:
        """(windows, N, N): what is added to scores of positions from different edges."""
        rows, columns = (_parts(n, self.window, self.shift) for n in (height, width))
        part = (rows[:, None] * 3 + columns)[None, :, :, None]
        part = to_windows(part, self.window).reshape(-1, self.window**2)
        return mx.where(part[:, :, None] == part[:, None], 0.0, FAR)


def _parts(size: int, window: int, shift: int) -> mx.array:
    """(size,): 0 for what no window mixes with the other edge, and 1 and 2 for the edges."""
    place = mx.arange(size)
    return (place >= size - window).astype(mx.int32) + (place >= size - shift)


def _rolled(x: mx.array, shift: int) -> mx.array:
    """(B, H, W, C) with ``shift`` rows and columns from the start at the end, or back."""
    for axis in (1, 2) if shift else ():
        first, rest = mx.split(x, [shift if shift > 0 else x.shape[axis] + shift], axis=axis)
        x = mx.concatenate([rest, first], axis=axis)
    return x


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        attn = WindowAttention(dim, heads, window, shift)
        self.mixer = ScaledResidual(attn, dim, nn.LayerNorm(dim), None)
        self.mlp = ScaledResidual(Mlp(dim, 4 * dim), dim, nn.LayerNorm(dim), None)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.mlp(self.mixer(x))


class PatchMerging(nn.Module):
    """Four positions side by side become one: in timm's order column by column."""

    by_rows = False

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / 2, W / 2, C), halves rounded up."""
        x = pad_to_multiple(x, 2)
        B, H, W, C = x.shape
        order = (0, 1, 3, 2, 4, 5) if self.by_rows else (0, 1, 3, 4, 2, 5)
        x = x.reshape(B, H // 2, 2, W // 2, 2, C).transpose(order)
        return self.reduction(self.norm(x.reshape(B, H // 2, W // 2, 4 * C)))

    def fuse(self) -> PatchMerging:
        """The same row by row, for which there is one operation."""
        if self.by_rows:
            return self
        fused = copy.copy(self)
        fused.norm, fused.reduction = copy.copy(self.norm), copy.copy(self.reduction)
        for layer, name in (("norm", "weight"), ("norm", "bias"), ("reduction", "weight")):
            array = fused[layer][name]
            four = array.reshape(-1, 2, 2, array.shape[-1] // 4).swapaxes(1, 2)
            fused[layer][name] = four.reshape(array.shape)
        fused.by_rows = True
        return fused


class Stage(DownStage):
    def __init__(self, c: SwinConfig, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        self.downsample = PatchMerging(in_dim, dim) if i else nn.Identity()
        side, window = c.side(i), c.windows[i]
        shift = window // 2 if side > window else 0
        self.blocks = [
            Block(dim, c.heads[i], min(side, window), shift if j % 2 else 0)
            for j in range(c.depth[i])
        ]


class Swin(ImageModel):
    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        c = config
        self.config = config
        dims = [info.channels for info in c.feature_info]
        self.patch_embed = PatchEmbed(3, dims[0], PATCH, PATCH)
        pairs = pairwise([dims[0], *dims])
        self.layers = [Stage(c, i, *pair) for i, pair in enumerate(pairs)]
        self.norm = nn.LayerNorm(dims[-1])
        if c.num_classes:
            self.head = nn.Linear(dims[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn([self.patch_embed], self.layers, x)

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)


_RENAMES = (
    (r"(blocks\.\d+)\.norm1\.", r"\1.mixer.norm."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.mlp.norm."),
    (r"(blocks\.\d+)\.attn\.(qkv|proj)\.", r"\1.mixer.m.attn.\2."),
    (r"(blocks\.\d+)\.attn\.relative_position_bias_table$", r"\1.mixer.m.bias.table"),
    (r"(blocks\.\d+)\.mlp\.fc", r"\1.mlp.m.fc"),
    (r"^head\.fc\.", "head."),
)
IN22K = 21841  # classes of ImageNet-22k


def _register(
    name: str, params: int, macs: int, config: SwinConfig, **top1: float | None
) -> None:
    """``top1`` by tag."""
    size = config.img_size
    register_model(
        ModelSpec(
            name=name,
            family="swin",
            build=Swin,
            config=config,
            preprocess=Preprocess(size=size, crop_pct=0.9 if size == 224 else 1),
            checkpoints=tuple(
                timm_weights(
                    name,
                    tag,
                    "mit",
                    percent,
                    labels="" if tag == "ms_in22k" else IMAGENET1K,
                    config={"num_classes": IN22K} if tag == "ms_in22k" else {},
                )
                for tag, percent in top1.items()
            ),
            fixed_size=True,
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


_HEADS = (3, 6, 12, 24)
_TINY = SwinConfig(embed_dim=96, depth=(2, 2, 6, 2), heads=_HEADS)
_SMALL = SwinConfig(embed_dim=96, depth=(2, 2, 18, 2), heads=_HEADS)
_BASE = SwinConfig(embed_dim=128, depth=(2, 2, 18, 2), heads=(4, 8, 16, 32))
_LARGE = SwinConfig(embed_dim=192, depth=(2, 2, 18, 2), heads=(6, 12, 24, 48))
_S3 = SwinConfig(embed_dim=96, depth=(2, 2, 30, 2), heads=_HEADS, windows=(7, 7, 14, 7))
_384: dict[str, Any] = {"img_size": 384, "windows": (12, 12, 12, 12)}

for _size, _config, _facts, _top1 in (
    ("tiny", _TINY, (28_290_000, 4_510_000_000), (81.376, 80.968)),
    ("small", _SMALL, (49_610_000, 8_770_000_000), (83.208, 83.298)),
    ("base", _BASE, (87_770_000, 15_470_000_000), (83.606, 85.272)),
):
    _register(
        f"swin_{_size}_patch4_window7_224",
        *_facts,
        _config,
        ms_in1k=_top1[0],
        ms_in22k_ft_in1k=_top1[1],
        ms_in22k=None,
    )
_register(
    "swin_base_patch4_window12_384",
    87_900_000,
    47_190_000_000,
    replace(_BASE, **_384),
    ms_in22k_ft_in1k=86.438,
    ms_in1k=84.476,
    ms_in22k=None,
)
_register(
    "swin_large_patch4_window7_224",
    196_530_000,
    34_530_000_000,
    _LARGE,
    ms_in22k_ft_in1k=86.312,
    ms_in22k=None,
)
_register(
    "swin_large_patch4_window12_384",
    196_740_000,
    104_080_000_000,
    replace(_LARGE, **_384),
    ms_in22k_ft_in1k=87.132,
    ms_in22k=None,
)
_register(
    "swin_s3_tiny_224",
    28_330_000,
    4_640_000_000,
    replace(_S3, depth=(2, 2, 6, 2)),
    ms_in1k=82.144,
)
_register(
    "swin_s3_small_224",
    49_740_000,
    9_430_000_000,
    replace(_S3, depth=(2, 2, 18, 2), windows=(14, 14, 14, 7)),
    ms_in1k=83.756,
)
_register("swin_s3_base_224", 71_130_000, 13_690_000_000, _S3, ms_in1k=83.92)
