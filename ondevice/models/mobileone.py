"""MobileOne: depthwise and 1x1 convolutions, trained as many, each run as one.

Paper: https://arxiv.org/abs/2206.04040
Code: https://github.com/apple/ml-mobileone; names follow timm/models/byobnet.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..nn.image_model import ImageModel, in_turn
from ..nn.layers import ReLU, make_divisible
from ..nn.reparam import MobileOne as Branches
from ..registry import ModelSpec, Shapes, register_model, timm_weights

DEPTH = (2, 8, 10, 1)  # pairs of blocks of a stage


@dataclass(frozen=True, kw_only=True)
class MobileOneConfig(ModelConfig):
    embed_dim: tuple[int, ...]
    depth: tuple[int, ...] = DEPTH
    branches: int = 1
    squeeze: tuple[int, ...] = (0, 0, 0, 0)  # pairs of a stage, the last ones, that weigh
    inference_mode: bool = False  # built with the branches merged

    @property
    def stem(self) -> int:
        return min(64, self.embed_dim[0])

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        dims = (self.stem, *self.embed_dim)
        return tuple(FeatureInfo(i, c, 2 * 2**i) for i, c in enumerate(dims))


def _block(
    c: MobileOneConfig, in_dim: int, dim: int, squeeze: bool, **options: Any
) -> Branches:
    stride = options.get("stride", 1)
    return Branches(
        in_dim,
        dim,
        identity=in_dim == dim and stride == 1,
        se_dim=make_divisible(dim / 16) if squeeze else 0,
        act=ReLU(),
        branches=c.branches,
        fused=c.inference_mode,
        **options,
    )


def _stage(c: MobileOneConfig, i: int) -> nn.Sequential:
    in_dim, dim = (c.stem, *c.embed_dim)[i : i + 2]
    blocks: list[nn.Module] = []
    for j in range(c.depth[i]):
        squeeze, stride = j >= c.depth[i] - c.squeeze[i], 1 if j else 2
        blocks += [
            _block(c, in_dim, in_dim, squeeze, kernel=3, stride=stride, groups=in_dim),
            _block(c, in_dim, dim, squeeze, kernel=1),
        ]
        in_dim = dim
    return nn.Sequential(*blocks)


class MobileOne(ImageModel):
    def __init__(self, config: MobileOneConfig) -> None:
        super().__init__()
        c = config
        self.config = config
        self.stem = Branches(3, c.stem, 3, 2, act=ReLU(), fused=c.inference_mode)
        self.stages = [_stage(c, i) for i in range(len(c.depth))]
        if c.num_classes:
            self.head = nn.Linear(c.embed_dim[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to five NHWC maps."""
        return in_turn([], [self.stem, *self.stages], x)


def _adapt(shapes: Shapes) -> dict[str, Any]:
    """Whether a file's branches are merged."""
    return {"inference_mode": "stem.reparam_conv.weight" in shapes}


def _register(
    name: str, top1: float, params: int, macs: int, config: MobileOneConfig, crop: float = 0.9
) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="mobileone",
            build=MobileOne,
            config=config,
            preprocess=Preprocess(crop_pct=crop, interpolation="bilinear"),
            checkpoints=(timm_weights(name, "apple_in1k", "mobileone-license", top1),),
            renames=(
                (r"^(stages\.\d+)\.(\d+)\.", r"\1.layers.\2."),
                (r"\.attn\.", ".se."),
                (r"^head\.fc\.", "head."),
            ),
            adapt=_adapt,
            params=params,
            macs=macs,
        )
    )


_register(
    "mobileone_s0",
    71.4,
    params=5_290_000,
    macs=280_000_000,
    config=MobileOneConfig(embed_dim=(48, 128, 256, 1024), branches=4),
    crop=0.875,
)
_register(
    "mobileone_s1",
    75.9,
    params=4_830_000,
    macs=830_000_000,
    config=MobileOneConfig(embed_dim=(96, 192, 512, 1280)),
)
_register(
    "mobileone_s2",
    77.4,
    params=7_880_000,
    macs=1_300_000_000,
    config=MobileOneConfig(embed_dim=(96, 256, 640, 2048)),
)
_register(
    "mobileone_s3",
    78.1,
    params=10_170_000,
    macs=1_900_000_000,
    config=MobileOneConfig(embed_dim=(128, 320, 768, 2048)),
)
_register(
    "mobileone_s4",
    79.4,
    params=14_950_000,
    macs=2_980_000_000,
    config=MobileOneConfig(embed_dim=(192, 448, 896, 2048), squeeze=(0, 0, 5, 1)),
)
