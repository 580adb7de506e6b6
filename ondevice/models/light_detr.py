"""Light DETR: RT-DETR's encoder and decoder, made narrow, on a backbone of this registry.

Paper: https://arxiv.org/abs/2304.08069 (RT-DETR); the backbones are each its own family's
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx

from ..config import FeatureInfo, Preprocess
from ..nn.detr import LEVELS, Detr, DetrConfig
from ..registry import Checkpoint, ModelSpec, model_spec, register_model


@dataclass(frozen=True, kw_only=True)
class LightDetrConfig(DetrConfig):
    backbone: str  # a variant of the registry
    encoder_dim: int = 64
    encoder_ffn: int = 128
    expansion: float = 0.5
    decoder_dim: int = 64
    decoder_ffn: int = 128
    decoder_depth: int = 3
    heads: int = 4
    queries: int = 50
    anchor_side: float = 0.1  # maps are half as fine as RT-DETR's

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return model_spec(self.backbone).config.feature_info[-LEVELS:]

    @property
    def stride(self) -> int:
        """That of the coarsest map: each has exactly half the height and width of the finer."""
        return self.feature_info[-1].stride


class LightDetr(Detr):
    def __init__(self, config: LightDetrConfig) -> None:
        spec = model_spec(config.backbone)
        backbone = spec.build(replace(spec.config, num_classes=0))
        super().__init__(config, backbone, [stage.channels for stage in config.feature_info])

    def stages(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the backbone's last three NHWC maps."""
        maps: list[mx.array] = self.backbone.maps(x)
        return maps[-LEVELS:]


def _register(
    backbone: str,
    params: int,  # of a model of COCO's 80 classes
    *checkpoints: Checkpoint,
    size: int = 320,
    dim: int = 96,
    depth: int = 3,
) -> None:
    register_model(
        ModelSpec(
            name=f"light_detr_{backbone}",
            family="light_detr",
            build=LightDetr,
            config=LightDetrConfig(
                backbone=backbone,
                encoder_dim=dim,
                encoder_ffn=2 * dim,
                decoder_dim=dim,
                decoder_ffn=2 * dim,
                decoder_depth=depth,
            ),
            preprocess=Preprocess(
                size=size, crop_pct=1, crop_mode="squash", interpolation="bilinear"
            ),
            checkpoints=checkpoints,
            params=params,
        )
    )


_register(
    "shvit_nano",
    1_670_408,
    Checkpoint(tag="shapes", repo="", license="mit"),
    dim=64,
    depth=2,
)
_register("shvit_s1", 7_193_616)
_register("shvit_s2", 12_237_976)
_register("shvit_s3", 15_010_545)
_register("shvit_s4", 17_355_292)
_register("efficientvit_m0", 3_312_852)
_register("efficientvit_m1", 3_951_656)
_register("efficientvit_m2", 5_134_266)
_register("efficientvit_m3", 7_765_066)
_register("efficientvit_m4", 9_612_124)
_register("efficientvit_m5", 13_290_884)
