"""Positions that a convolution finds out, so that images may have any size.

Paper: https://arxiv.org/abs/2102.10882
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from .layers import Conv2d, add_identity


class ConditionalPositions(nn.Module):
    """``x`` and a depthwise convolution of it: one convolution once fused."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = Conv2d(dim, dim, 3, padding=1, groups=dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return x + self.proj(x)

    def fuse(self) -> nn.Module:
        """One depthwise convolution."""
        return add_identity(self.proj)
