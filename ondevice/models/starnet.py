"""StarNet: products of two linear layers' outputs instead of attention.

Paper: https://arxiv.org/abs/2403.19967
Code: https://github.com/ma-xu/Rewrite-the-Stars (Apache-2.0); names follow
timm/models/starnet.py
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..nn.batch_norm import BatchNorm
from ..nn.drop_path import DropPath
from ..nn.image_model import ImageModel, in_turn
from ..nn.layers import Conv2d, ConvNorm, ReLU6
from ..registry import ModelSpec, register_model, timm_weights

STEM = 32


@dataclass(frozen=True, kw_only=True)
class StarNetConfig(ModelConfig):
    width: int
    depth: tuple[int, ...]
    mlp_ratio: int = 4

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(
            FeatureInfo(i, self.width * 2**i, 4 * 2**i) for i in range(len(self.depth))
        )


class Block(DropPath):
    """The product of two views of what a large kernel gathers, then another large kernel."""

    def __init__(self, dim: int, mlp_ratio: int) -> None:
        super().__init__()
        hidden = mlp_ratio * dim
        self.dwconv = ConvNorm(dim, dim, 7, groups=dim, bias=True)
        self.f1 = Conv2d(dim, hidden, 1)
        self.f2 = Conv2d(dim, hidden, 1)
        self.act = ReLU6()
        self.g = ConvNorm(hidden, dim, bias=True)
        self.dwconv2 = Conv2d(dim, dim, 7, padding=3, groups=dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        y = self.dwconv(x)
        y = self.g(self.act(self.f1(y)) * self.f2(y))
        return x + self.dropped(self.dwconv2(y))


class StarNet(ImageModel):
    def __init__(self, config: StarNetConfig) -> None:
        super().__init__()
        self.config = config
        dims = [info.channels for info in config.feature_info]
        self.stem = [ConvNorm(3, STEM, 3, 2, bias=True), ReLU6()]
        self.stages = [
            nn.Sequential(
                ConvNorm(in_dim, dim, 3, 2, bias=True),
                *(Block(dim, config.mlp_ratio) for _ in range(depth)),
            )
            for (in_dim, dim), depth in zip(pairwise([STEM, *dims]), config.depth, strict=True)
        ]
        self.norm = BatchNorm(dims[-1])
        if config.num_classes:
            self.head = nn.Linear(dims[-1], config.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.stem, self.stages, x)

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)


def _register(
    name: str, config: StarNetConfig, top1: float | None, params: int, macs: int
) -> None:
    """Without ``top1`` nobody has published weights."""
    register_model(
        ModelSpec(
            name=name,
            family="starnet",
            build=StarNet,
            config=config,
            preprocess=Preprocess(),
            checkpoints=(timm_weights(name, "in1k", "apache-2.0", top1),) if top1 else (),
            renames=(
                (r"^(stages\.\d+)\.(\d+)\.", r"\1.layers.\2."),
                (r"\.(f1|f2|dwconv2)\.conv\.", r".\1."),
            ),
            params=params,
            macs=macs,
        )
    )


def _config(width: int, *depth: int, mlp_ratio: int = 4) -> StarNetConfig:
    return StarNetConfig(width=width, depth=depth, mlp_ratio=mlp_ratio)


_register("starnet_s1", _config(24, 2, 2, 8, 3), 73.5, 2_870_000, 420_000_000)
_register("starnet_s2", _config(32, 1, 2, 6, 2), 74.8, 3_680_000, 550_000_000)
_register("starnet_s3", _config(32, 2, 2, 8, 4), 77.3, 5_760_000, 760_000_000)
_register("starnet_s4", _config(32, 3, 3, 12, 5), 78.4, 7_480_000, 1_050_000_000)
_register("starnet_s050", _config(16, 1, 1, 3, 1, mlp_ratio=3), None, 543_000, 90_000_000)
_register("starnet_s100", _config(20, 1, 2, 4, 1), None, 1_043_000, 190_000_000)
_register("starnet_s150", _config(24, 1, 2, 4, 2, mlp_ratio=3), None, 1_560_000, 230_000_000)
