"""SegFormer: a class for each pixel, by a pyramid of attention and a head of linear layers.

Paper: https://arxiv.org/abs/2105.15203
Code: https://github.com/NVlabs/SegFormer; names follow transformers
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..config.labels import ADE20K
from ..cpu import kernels
from ..nn.batch_norm import BatchNorm
from ..nn.image_model import check_image
from ..nn.layers import Conv2d, fold_norm
from ..nn.qkv_attention import Attention
from ..nn.resize import bilinear
from ..nn.segmentation import Segmenter
from ..registry import Checkpoint, ModelSpec, register_model

REDUCTIONS = (8, 4, 2, 1)  # of the keys, in each direction
HEADS = (1, 2, 5, 8)


@dataclass(frozen=True, kw_only=True)
class SegformerConfig(ModelConfig):
    num_classes: int = 150
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    decoder_dim: int = 256

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, c, 2 ** (i + 2)) for i, c in enumerate(self.dims))

    @property
    def stride(self) -> int:
        return 32


class Patches(nn.Module):
    """Overlapping patches, normalized."""

    def __init__(self, in_dim: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = Conv2d(in_dim, dim, kernel, stride, kernel // 2)
        self.layer_norm = nn.LayerNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, dim)."""
        return self.layer_norm(self.proj(x))


class Reduction(nn.Module):
    """A map of fewer keys."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.sequence_reduction = Conv2d(dim, dim, factor, factor)
        self.layer_norm = nn.LayerNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B, H / factor, W / factor, C)."""
        return self.layer_norm(self.sequence_reduction(x))


class MapAttention(Attention):
    """Of all pixels to a smaller map of them."""

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__(dim, heads)
        if reduction > 1:
            self.sequence_reduction = Reduction(dim, reduction)

    def __call__(
        self, x: mx.array, keys: mx.array | None = None, values: mx.array | None = None
    ) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, C = x.shape
        small = self.sequence_reduction(x) if "sequence_reduction" in self else x
        y = super().__call__(x.reshape(B, H * W, C), small.reshape(B, -1, C))
        return y.reshape(B, H, W, C)


class MixMlp(nn.Module):
    """Two linear layers with a depthwise convolution between, which tells where pixels are."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = 4 * dim
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = {"dwconv": Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)}
        self.fc2 = nn.Linear(hidden, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.fc2(kernels.gelu(self.dwconv["dwconv"](self.fc1(x))))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(dim)
        self.attention = MapAttention(dim, heads, reduction)
        self.layernorm_after = nn.LayerNorm(dim)
        self.mlp = MixMlp(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        x = x + self.attention(self.layernorm_before(x))
        return x + self.mlp(self.layernorm_after(x))


class Stage(nn.Module):
    def __init__(self, number: int, in_dim: int, dim: int, depth: int) -> None:
        super().__init__()
        kernel, stride = (7, 4) if number == 0 else (3, 2)
        self.patch_embeddings = Patches(in_dim, dim, kernel, stride)
        self.blocks = [Block(dim, HEADS[number], REDUCTIONS[number]) for _ in range(depth)]
        self.layer_norm = nn.LayerNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, dim)."""
        x = self.patch_embeddings(x)
        for block in self.blocks:
            x = block(x)
        return self.layer_norm(x)


class Fuse(nn.Module):
    """A 1x1 convolution and its batch norm: one convolution once fused."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = Conv2d(in_dim, dim, 1, bias=False)
        self.norm = BatchNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H, W, dim)."""
        return self.norm(self.linear(x))

    def fuse(self) -> nn.Module:
        """One convolution with a bias."""
        return fold_norm(self.linear, self.norm)


class DecodeHead(nn.Module):
    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.linear_projections = [{"proj": nn.Linear(c, dim)} for c in config.dims]
        self.fuse_maps = Fuse(len(config.dims) * dim, dim)
        self.classifier = Conv2d(dim, config.num_classes, 1)

    def __call__(self, maps: list[mx.array]) -> mx.array:
        """A pyramid of maps to (B, H / 4, W / 4, classes)."""
        size = (maps[0].shape[1], maps[0].shape[2])
        layers = zip(maps, self.linear_projections, strict=True)
        same = [bilinear(layer["proj"](x), size) for x, layer in layers]
        x = mx.concatenate(same[::-1], axis=-1)
        return self.classifier(kernels.relu(self.fuse_maps(x)))


class Segformer(Segmenter):
    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        self.config = config
        dims = enumerate(zip(pairwise((3, *config.dims)), config.depths, strict=True))
        stages = [Stage(i, a, b, depth) for i, ((a, b), depth) in dims]
        self.segformer = {"stages": stages}
        self.decode_head = DecodeHead(config)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, H / 4, W / 4, classes) scores before the softmax.

        Raises ConfigError for a size that is no multiple of 32.
        """
        check_image(x, self.config.stride)
        maps = []
        for stage in self.segformer["stages"]:
            x = stage(x)
            maps.append(x)
        return self.decode_head(maps)


# What transformers called layers before its version 5, as files still do.
_RENAMES = (
    (r"encoder\.patch_embeddings\.(\d)\.", r"stages.\1.patch_embeddings."),
    (r"encoder\.block\.(\d)\.", r"stages.\1.blocks."),
    (r"encoder\.layer_norm\.(\d)\.", r"stages.\1.layer_norm."),
    (r"attention\.self\.(q|k|v)(uery|ey|alue)\.", r"attention.\1_proj."),
    (r"attention\.self\.sr\.", "attention.sequence_reduction.sequence_reduction."),
    (r"attention\.self\.layer_norm\.", "attention.sequence_reduction.layer_norm."),
    (r"attention\.output\.dense\.", "attention.o_proj."),
    (r"mlp\.dense(\d)\.", r"mlp.fc\1."),
    (r"layer_norm_1\.", "layernorm_before."),
    (r"layer_norm_2\.", "layernorm_after."),
    (r"decode_head\.linear_c\.", "decode_head.linear_projections."),
    # And ours: a norm beside its convolution.
    (r"decode_head\.linear_fuse\.", "decode_head.fuse_maps.linear."),
    (r"decode_head\.batch_norm\.", "decode_head.fuse_maps.norm."),
)


def _register(variant: str, miou: float, params: int, config: SegformerConfig) -> None:
    register_model(
        ModelSpec(
            name=f"segformer_{variant}",
            family="segformer",
            build=Segformer,
            config=config,
            preprocess=Preprocess(
                size=512, crop_pct=1, crop_mode="squash", interpolation="bilinear"
            ),
            checkpoints=(
                Checkpoint(
                    tag="ade20k",
                    repo=f"nvidia/segformer-{variant}-finetuned-ade-512-512",
                    license="nvidia-segformer",
                    note=f"{miou} % mIoU on ADE20K as published; NVIDIA's licence allows "
                    "research and evaluation only",
                    labels=ADE20K,
                ),
            ),
            renames=_RENAMES,
            params=params,
        )
    )


_register("b0", 37.4, 3_752_694, SegformerConfig(dims=(32, 64, 160, 256), depths=(2, 2, 2, 2)))
_register(
    "b1", 42.2, 13_700_000, SegformerConfig(dims=(64, 128, 320, 512), depths=(2, 2, 2, 2))
)
_register(
    "b2",
    46.5,
    27_500_000,
    SegformerConfig(dims=(64, 128, 320, 512), depths=(3, 4, 6, 3), decoder_dim=768),
)
