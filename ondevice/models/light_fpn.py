"""Light FPN: a class for each pixel, by a small pyramid on a backbone of this registry.

Papers: https://arxiv.org/abs/1901.02446 (Panoptic FPN: the pyramid's maps summed at the finest
one), https://arxiv.org/abs/1704.04861 (MobileNets: its convolutions, depthwise and 1x1)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..cpu import kernels
from ..nn.image_model import check_image
from ..nn.layers import Conv2d, ConvNorm
from ..nn.segmentation import Segmenter
from ..registry import Checkpoint, ModelSpec, model_spec, register_model

STEM = {4: 4, 8: 6}  # strides of maps in ``conv_stem``, and behind how many of its layers


@dataclass(frozen=True, kw_only=True)
class LightFpnConfig(ModelConfig):
    num_classes: int = 150
    backbone: str  # a variant of the registry, with a ``conv_stem``
    dim: int = 96  # channels of all maps of the pyramid

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """Of two maps in the stem, then of those of the stages."""
        first, *others = model_spec(self.backbone).config.feature_info
        stem = [(first.channels * stride // first.stride, stride) for stride in STEM]
        maps = [*stem, *((each.channels, each.stride) for each in (first, *others))]
        return tuple(FeatureInfo(i, *each) for i, each in enumerate(maps))

    @property
    def stride(self) -> int:
        """That of the backbone: coarser maps of odd size are halved, too."""
        return model_spec(self.backbone).stride


class Separable(nn.Module):
    """A depthwise 3x3 and a 1x1 convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(dim, dim, 3, groups=dim)
        self.pointwise = ConvNorm(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, dim) map to the same shape."""
        return kernels.relu(self.pointwise(kernels.relu(self.depthwise(x))))


class PyramidHead(nn.Module):
    """Each map gets what the coarser ones know, is convolved, and added up at the finest."""

    def __init__(self, config: LightFpnConfig) -> None:
        super().__init__()
        dim = config.dim
        self.lateral = [ConvNorm(stage.channels, dim) for stage in config.feature_info]
        self.blocks = [Separable(dim) for _ in config.feature_info]
        self.double = nn.Upsample(2)
        self.classifier = Conv2d(dim, config.num_classes, 1)

    def __call__(self, maps: list[mx.array]) -> mx.array:
        """NHWC maps from fine to coarse to scores (B, H, W, classes) of the finest's size."""
        *finer, coarse = (f(x) for f, x in zip(self.lateral, maps, strict=True))
        total = self.blocks[-1](coarse)
        for x, block in zip(finer[::-1], self.blocks[-2::-1], strict=True):
            coarse = x + self._like(x, coarse)
            total = block(coarse) + self._like(x, total)
        return self.classifier(total)

    def _like(self, fine: mx.array, coarse: mx.array) -> mx.array:
        """A coarse map at twice its size, or one less where the fine one's is odd."""
        _, height, width, _ = fine.shape
        return self.double(coarse)[:, :height, :width]


class LightFpn(Segmenter):
    def __init__(self, config: LightFpnConfig) -> None:
        super().__init__()
        self.config = config
        spec = model_spec(config.backbone)
        self.backbone = spec.build(replace(spec.config, num_classes=0))
        self.decode_head = PyramidHead(config)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, H / 4, W / 4, classes) scores before the softmax.

        Raises ConfigError for a size that is no multiple of the backbone's stride.
        """
        check_image(x, self.config.stride)
        return self.decode_head(self.maps(x))

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the NHWC maps of ``config.feature_info``."""
        found = []
        for number, layer in enumerate(self.backbone.patch_embed, start=1):
            x = layer(x)
            if number in STEM.values():
                found.append(x)
        for stage in self.backbone.stages:
            x = stage(x)
            found.append(x)
        return found


def _register(
    backbone: str,
    params: int,  # of a model of 150 classes
    *checkpoints: Checkpoint,
    size: int = 512,
    dim: int = 96,
) -> None:
    register_model(
        ModelSpec(
            name=f"light_fpn_{backbone}",
            family="light_fpn",
            build=LightFpn,
            config=LightFpnConfig(backbone=backbone, dim=dim),
            preprocess=Preprocess(
                size=size, crop_pct=1, crop_mode="squash", interpolation="bilinear"
            ),
            checkpoints=checkpoints,
            params=params,
        )
    )


_register(
    "shvit_nano",
    1_256_066,
    Checkpoint(tag="shapes", repo="", license="mit"),
    size=256,
    dim=64,
)
_register("shvit_s1", 6_150_726)
_register("shvit_s2", 11_195_086)
_register("shvit_s3", 13_972_263)
_register("shvit_s4", 16_319_314)
_register("efficientvit_m0", 2_265_354)
_register("efficientvit_m1", 2_908_766)
_register("efficientvit_m2", 4_091_376)
_register("efficientvit_m3", 6_722_176)
_register("efficientvit_m4", 8_569_234)
_register("efficientvit_m5", 12_252_602)
