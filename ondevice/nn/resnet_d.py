"""ResNet-D: a stem of three convolutions, and pools where a residual steps down.

Papers: https://arxiv.org/abs/1512.03385 (ResNet), https://arxiv.org/abs/1812.01187 (the D)
"""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..cpu import kernels
from .layers import ConvNorm


class Shortcut(nn.Module):
    """A residual in other channels, half the size if ``stride`` is 2."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.project = ConvNorm(in_dim, dim)
        self.pool = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, dim)."""
        return self.project(self.pool(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or with ``bottleneck`` one between two 1x1 ones."""

    def __init__(
        self, in_dim: int, dim: int, stride: int, *, bottleneck: bool, first: bool
    ) -> None:
        super().__init__()
        if bottleneck:
            inner = dim // 4
            shapes = [(in_dim, inner, 1, 1), (inner, inner, 3, stride), (inner, dim, 1, 1)]
        else:
            shapes = [(in_dim, dim, 3, stride), (dim, dim, 3, 1)]
        self.layer = [ConvNorm(*shape) for shape in shapes]
        self.shortcut = Shortcut(in_dim, dim, stride) if first else nn.Identity()

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, dim)."""
        y, last = x, self.layer[-1]
        for conv in self.layer[:-1]:
            y = kernels.relu(conv(y))
        return kernels.relu(last(y) + self.shortcut(x))


class ResNetD(nn.Module):
    """Maps at strides 8, 16 and 32."""

    def __init__(
        self,
        dims: tuple[int, ...],
        depths: tuple[int, ...],
        *,
        bottleneck: bool,
        stem: int = 64,
    ) -> None:
        super().__init__()
        half = stem // 2
        shapes = [(3, half, 3, 2), (half, half, 3), (half, stem, 3)]
        self.embedder = [ConvNorm(*shape) for shape in shapes]
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stages = []
        for i, ((in_dim, dim), depth) in enumerate(
            zip(pairwise((stem, *dims)), depths, strict=True)
        ):
            stride = 1 if i == 0 else 2
            first = ResidualBlock(in_dim, dim, stride, bottleneck=bottleneck, first=True)
            rest = [
                ResidualBlock(dim, dim, 1, bottleneck=bottleneck, first=False)
                for _ in range(depth - 1)
            ]
            self.stages.append([first, *rest])

    def __call__(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the NHWC maps of all stages but the first."""
        for conv in self.embedder:
            x = kernels.relu(conv(x))
        x, maps = self.pool(x), []
        for stage in self.stages:
            for block in stage:
                x = block(x)
            maps.append(x)
        return maps[1:]
