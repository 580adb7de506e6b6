"""PoolFormer: transformer blocks that mix positions by nothing but a mean of neighbours.

Papers: https://arxiv.org/abs/2111.11418, https://arxiv.org/abs/2210.13452 (version 2)
Code: https://github.com/sail-sg/poolformer (Apache-2.0); names follow timm/models/metaformer.py
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import GELU, Conv2d, GroupNorm1
from ..nn.residual import Block, ScaledResidual, window_share
from ..registry import ModelSpec, register_model, timm_weights


@dataclass(frozen=True, kw_only=True)
class PoolFormerConfig(PyramidConfig):
    depth: tuple[int, ...]
    second: bool = False  # version: other norms and activation, and scaled residuals

    @property
    def stride(self) -> int:
        return self.feature_info[-1].stride


class NeighboursLess(nn.Module):
    """The mean of a position and its neighbours, less the position."""

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        share = window_share(x.shape[1], x.shape[2], 3).astype(x.dtype)
        return nn.AvgPool2d(3, 1, 1)(x) * share - x


class StarReLU(nn.Module):
    """A squared ReLU with a learned scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = mx.ones(1), mx.zeros(1)

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape to the same."""
        return self.scale * mx.square(mx.maximum(x, 0)) + self.bias


class Mlp(nn.Module):
    last = "fc2"

    def __init__(self, dim: int, hidden: int, second: bool) -> None:
        super().__init__()
        self.fc1 = Conv2d(dim, hidden, 1, bias=not second)
        self.act = StarReLU() if second else GELU()
        self.fc2 = Conv2d(hidden, dim, 1, bias=not second)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.fc2(self.act(self.fc1(x)))


class Branch(ScaledResidual):
    """A residual branch beside a learned multiple of what it is added to."""

    def __init__(self, m: nn.Module, dim: int, norm: nn.Module) -> None:
        super().__init__(m, dim, norm, None)
        self.res_scale = mx.ones(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ..., dim) to the same shape."""
        return x * self.res_scale + self.branch(x)


def _norm(c: PoolFormerConfig, dim: int) -> nn.Module:
    if not c.second:
        return GroupNorm1(dim)
    norm = GroupNorm1(dim, eps=1e-6)
    del norm.bias
    return norm


def _block(c: PoolFormerConfig, i: int) -> Block:
    dim = c.embed_dim[i]
    mlp = Mlp(dim, 4 * dim, c.second)
    make = Branch if c.second and i >= 2 else ScaledResidual
    scale = {} if make is Branch else {"scale": None if c.second else 1e-5}
    return Block(*(make(m, dim, _norm(c, dim), **scale) for m in (NeighboursLess(), mlp)))


class Downsample(nn.Module):
    def __init__(self, c: PoolFormerConfig, in_dim: int, dim: int) -> None:
        super().__init__()
        self.norm = _plain_norm(in_dim) if c.second else nn.Identity()
        self.conv = Conv2d(in_dim, dim, 3, 2, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / 2, W / 2, C), halves rounded up."""
        return self.conv(self.norm(x))


def _plain_norm(dim: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(dim, 1e-6)
    del norm.bias
    return norm


class Stem(nn.Module):
    def __init__(self, c: PoolFormerConfig) -> None:
        super().__init__()
        self.conv = Conv2d(3, c.embed_dim[0], 7, 4, 2)
        self.norm = _plain_norm(c.embed_dim[0]) if c.second else nn.Identity()

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, H / 4, W / 4, C)."""
        return self.norm(self.conv(x))


class Stage(DownStage):
    def __init__(self, c: PoolFormerConfig, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        self.downsample = Downsample(c, in_dim, dim) if in_dim != dim else nn.Identity()
        self.blocks = [_block(c, i) for _ in range(c.depth[i])]


class PoolFormer(ImageModel):
    def __init__(self, config: PoolFormerConfig) -> None:
        super().__init__()
        c, last = config, config.embed_dim[-1]
        self.config = config
        self.stem = Stem(c)
        dims = pairwise([c.embed_dim[0], *c.embed_dim])
        self.stages = [Stage(c, i, *pair) for i, pair in enumerate(dims)]
        self.norm = nn.LayerNorm(last, 1e-6)
        if c.num_classes:
            self.head = nn.Linear(last, c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn([self.stem], self.stages, x)

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) last map to (B, C), normalized."""
        return self.norm(super().pool(x))


_RENAMES = (
    (r"(blocks\.\d+)\.norm1\.", r"\1.mixer.norm."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.mlp.norm."),
    (r"(blocks\.\d+)\.mlp\.(fc|act)", r"\1.mlp.m.\2"),
    (r"\.layer_scale1\.scale$", ".mixer.layer_scale"),
    (r"\.layer_scale2\.scale$", ".mlp.layer_scale"),
    (r"\.res_scale1\.scale$", ".mixer.res_scale"),
    (r"\.res_scale2\.scale$", ".mlp.res_scale"),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
)


def _register(
    size: str, top1: tuple[float, float], params: tuple[int, int], macs: tuple[int, int]
) -> None:
    """Both versions of a size, whose letter is the width and whose number the depth."""
    depth = int(size[1:]) // 12
    crops = (0.95 if size[0] == "m" else 0.9, 1.0)
    for i, family in enumerate(("poolformer", "poolformerv2")):
        name = f"{family}_{size}"
        register_model(
            ModelSpec(
                name=name,
                family=family,
                build=PoolFormer,
                config=PoolFormerConfig(
                    embed_dim=(96, 192, 384, 768) if size[0] == "m" else (64, 128, 320, 512),
                    depth=(2 * depth, 2 * depth, 6 * depth, 2 * depth),
                    second=bool(i),
                ),
                preprocess=Preprocess(crop_pct=crops[i]),
                checkpoints=(timm_weights(name, "sail_in1k", "apache-2.0", top1[i]),),
                renames=_RENAMES,
                params=params[i],
                macs=macs[i],
            )
        )


_register("s12", (77.234, 78.004), (11_920_000, 11_890_000), (1_820_000_000, 1_830_000_000))
_register("s24", (80.296, 80.748), (21_390_000, 21_340_000), (3_410_000_000, 3_420_000_000))
_register("s36", (81.43, 81.568), (30_860_000, 30_790_000), (5_000_000_000, 5_010_000_000))
_register("m36", (82.102, 82.216), (56_170_000, 56_080_000), (8_800_000_000, 8_810_000_000))
_register("m48", (82.482, 82.62), (73_470_000, 73_350_000), (11_590_000_000, 11_590_000_000))
