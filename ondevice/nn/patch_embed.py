"""Patches of an image or a map become positions of fewer and wider vectors."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from .layers import Conv2d


class PatchEmbed(nn.Module):
    """A strided convolution, whose windows may overlap, and a norm over the channels."""

    def __init__(
        self, in_dim: int, dim: int, kernel: int, stride: int, padding: int = 0
    ) -> None:
        super().__init__()
        self.proj = Conv2d(in_dim, dim, kernel, stride, padding)
        self.norm = nn.LayerNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, C), rounded up with padding."""
        return self.norm(self.proj(x))
