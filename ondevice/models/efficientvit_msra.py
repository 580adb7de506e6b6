"""EfficientViT of Microsoft: cascaded group attention. Not MIT's network of the same name.

Paper: https://arxiv.org/abs/2305.07027
Code: https://github.com/microsoft/Cream/tree/main/EfficientViT (MIT); names follow
timm/models/efficientvit_msra.py
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
    LeadingDepthwise,
    NormLinear,
    ReLU,
    Residual,
    Stage,
    conv_stem,
    scale_output,
    stage_renames,
)
from ..nn.windows import from_windows, pad_to_multiple, to_windows
from ..registry import Checkpoint, ModelSpec, register_model

PATCH = 16  # pixels a side of the first map's cells


@dataclass(frozen=True, kw_only=True)
class EfficientViTConfig(ModelConfig):
    """``img_size`` decides how large the tables of attention biases are, no more.

    A stage attends in windows of 7 x 7, or of its whole map if that is smaller at
    ``img_size``. Larger maps are cut into such windows, so any image size will do.
    """

    embed_dim: tuple[int, ...]
    depth: tuple[int, ...]
    num_heads: tuple[int, ...]
    kernels: tuple[int, ...]  # one a head, of the depthwise convolution on its queries
    qk_dim: int = 16
    window: int = 7
    img_size: int = 224

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, c, PATCH * 2**i) for i, c in enumerate(self.embed_dim))

    @property
    def windows(self) -> tuple[int, ...]:
        """Each stage's window."""
        cells = self.img_size // PATCH
        return tuple(min(self.window, -(-cells // 2**i)) for i in range(len(self.depth)))


class CascadedGroupAttention(nn.Module):
    """Each head attends over its own share of the channels, plus what the head before gave."""

    def __init__(
        self, dim: int, qk_dim: int, num_heads: int, window: int, kernels: tuple[int, ...]
    ) -> None:
        super().__init__()
        v_dim = dim // num_heads
        self.splits = [qk_dim, 2 * qk_dim]
        self.window = window
        self.qkvs = [ConvNorm(v_dim, 2 * qk_dim + v_dim) for _ in range(num_heads)]
        self.dws: list[nn.Module] = [
            ConvNorm(qk_dim, qk_dim, kernel, groups=qk_dim) for kernel in kernels[:num_heads]
        ]
        self.proj = [ReLU(), ConvNorm(dim, dim)]
        self.attention_biases = mx.zeros((num_heads, window * window))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, _ = x.shape
        biases = self.biases()
        outs: list[mx.array] = []
        for i, share in enumerate(mx.split(x, len(self.qkvs), axis=-1)):
            qkv = self.qkv(i, share + outs[-1] if outs else share)
            q, k, v = mx.split(qkv.reshape(B, H * W, -1), self.splits, axis=-1)
            attn = kernels.softmax(q @ k.swapaxes(1, 2) + biases[i])
            outs.append((attn @ v).reshape(B, H, W, -1))
        x = mx.concatenate(outs, axis=-1)
        for layer in self.proj:
            x = layer(x)
        return x

    def qkv(self, i: int, x: mx.array) -> mx.array:
        """(B, H, W, C) input of head ``i`` to its queries, scaled, keys and values."""
        qkv = self.qkvs[i](x)
        if "fused_biases" in self:
            return self.dws[i](qkv)
        q, kv = mx.split(qkv, self.splits[:1], axis=-1)
        return mx.concatenate([self.dws[i](q) * self.splits[0] ** -0.5, kv], axis=-1)

    def biases(self) -> list[mx.array]:
        """For every head the (N, N) bias of each pair of pixels, by its distance in y and x."""
        if "fused_biases" in self:
            return self.fused_biases
        position = mx.arange(self.window)
        gap = mx.abs(position[:, None] - position)
        index = gap[:, None, :, None] * self.window + gap[None, :, None, :]
        return list(self.attention_biases[:, index.reshape(self.window**2, -1)])

    def fuse(self) -> CascadedGroupAttention:
        """Tables are looked up; q, k and v pass the depthwise convolution together."""
        if "fused_biases" in self:
            return self
        fused = copy.copy(self)
        fused.dws = [_widened(dw, qkv) for dw, qkv in zip(self.dws, self.qkvs, strict=True)]
        fused.fused_biases = self.biases()
        del fused.attention_biases
        return fused


def _widened(dw: nn.Module, qkv: nn.Module) -> nn.Module:
    """Depthwise convolution of all of ``qkv``'s output that changes q alone, and scales it."""
    q_dim, total = dw.weight.shape[0], qkv.weight.shape[0]
    q = scale_output(dw, mx.array(q_dim**-0.5, dw.weight.dtype))
    return LeadingDepthwise(q, total)


class WindowAttention(nn.Module):
    """Attention within windows; a map that is no larger than one is its own window."""

    def __init__(self, attn: CascadedGroupAttention) -> None:
        super().__init__()
        self.attn = attn

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape, for any height and width."""
        _, H, W, _ = x.shape
        size = self.attn.window
        padded = pad_to_multiple(x, size)
        y = from_windows(self.attn(to_windows(padded, size)), *padded.shape[1:3])
        return y if padded is x else y[:, :H, :W]


class Block(nn.Module):
    """Attention between two pairs of depthwise convolution and FFN."""

    def __init__(self, dim: int, attn: CascadedGroupAttention) -> None:
        super().__init__()
        self.dw0 = Residual(ConvNorm(dim, dim, 3, groups=dim))
        self.ffn0 = Residual(FFN(dim))
        self.mixer = Residual(WindowAttention(attn))
        self.dw1 = Residual(ConvNorm(dim, dim, 3, groups=dim))
        self.ffn1 = Residual(FFN(dim))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        x = self.mixer(self.ffn0(self.dw0(x)))
        return self.ffn1(self.dw1(x))


class EfficientViT(ImageModel):
    def __init__(self, config: EfficientViTConfig) -> None:
        super().__init__()
        c = config
        self.config = config
        self.patch_embed = conv_stem(c.embed_dim[0])

        def block(dim: int, num_heads: int, window: int) -> Block:
            attn = CascadedGroupAttention(dim, c.qk_dim, num_heads, window, c.kernels)
            return Block(dim, attn)

        dims = pairwise([c.embed_dim[0], *c.embed_dim])
        stages = zip(dims, c.depth, c.num_heads, c.windows, strict=True)
        self.stages = [
            Stage(in_dim, dim, [block(dim, num_heads, window) for _ in range(depth)])
            for (in_dim, dim), depth, num_heads, window in stages
        ]
        if c.num_classes:
            self.head = NormLinear(c.embed_dim[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to three NHWC maps."""
        return in_turn(self.patch_embed, self.stages, x)


# timm's name -> ours; then the names of the official files.
_RENAMES = (
    *((rf"^patch_embed\.conv{i + 1}\.", f"patch_embed.{2 * i}.") for i in range(4)),
    (r"downsample\.res1\.", "downsample."),
    (r"downsample\.patchmerge\.", "downsample.2."),
    (r"downsample\.res2\.0\.", "downsample.3."),
    (r"downsample\.res2\.1\.", "downsample.4."),
    (r"\.c\.weight$", ".conv.weight"),
    (r"^head\.l\.", "head.linear."),
)


def _register(
    name: str, *, top1: float, params: int, macs: int, config: EfficientViTConfig
) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="efficientvit_msra",
            build=EfficientViT,
            config=config,
            preprocess=Preprocess(),
            checkpoints=(
                Checkpoint(
                    tag="r224_in1k",
                    repo=f"timm/{name}.r224_in1k",
                    license="mit",
                    top1=top1,
                    labels=IMAGENET1K,
                ),
            ),
            renames=(*_RENAMES, *stage_renames(config.depth)),
            params=params,
            macs=macs,
        )
    )


_register(
    "efficientvit_m0",
    top1=63.304,
    params=2_350_000,
    macs=79_000_000,
    config=EfficientViTConfig(
        embed_dim=(64, 128, 192),
        depth=(1, 2, 3),
        num_heads=(4, 4, 4),
        kernels=(5, 5, 5, 5),
    ),
)
_register(
    "efficientvit_m1",
    top1=68.34,
    params=2_980_000,
    macs=167_000_000,
    config=EfficientViTConfig(
        embed_dim=(128, 144, 192),
        depth=(1, 2, 3),
        num_heads=(2, 3, 3),
        kernels=(7, 5, 3, 3),
    ),
)
_register(
    "efficientvit_m2",
    top1=70.796,
    params=4_190_000,
    macs=201_000_000,
    config=EfficientViTConfig(
        embed_dim=(128, 192, 224),
        depth=(1, 2, 3),
        num_heads=(4, 3, 2),
        kernels=(7, 5, 3, 3),
    ),
)
_register(
    "efficientvit_m3",
    top1=73.394,
    params=6_900_000,
    macs=263_000_000,
    config=EfficientViTConfig(
        embed_dim=(128, 240, 320),
        depth=(1, 2, 3),
        num_heads=(4, 3, 4),
        kernels=(5, 5, 5, 5),
    ),
)
_register(
    "efficientvit_m4",
    top1=74.344,
    params=8_800_000,
    macs=299_000_000,
    config=EfficientViTConfig(
        embed_dim=(128, 256, 384),
        depth=(1, 2, 3),
        num_heads=(4, 4, 4),
        kernels=(7, 5, 3, 3),
    ),
)
_register(
    "efficientvit_m5",
    top1=77.092,
    params=12_470_000,
    macs=522_000_000,
    config=EfficientViTConfig(
        embed_dim=(192, 288, 384),
        depth=(1, 3, 4),
        num_heads=(3, 3, 4),
        kernels=(7, 5, 3, 3),
    ),
)
