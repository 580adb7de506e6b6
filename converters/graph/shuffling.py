"""Pixels moved into channels and channels into pixels, of images (B, H, W, C)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def _unshuffle(x: Any, r: int, *, outer: bool) -> Any:
    """To (B, H/r, W/r, C r²); among its channels the pixels count outside, or inside."""
    B, H, W, C = x.shape
    x = x.reshape(B, H // r, r, W // r, r, C)
    x = x.transpose((0, 1, 3, 2, 4, 5) if outer else (0, 1, 3, 5, 2, 4))
    return x.reshape(B, H // r, W // r, C * r * r)


def _shuffle(x: Any, r: int, *, outer: bool) -> Any:
    """To (B, H r, W r, C/r²): the way back."""
    B, H, W, C = x.shape
    split = (r, r, C // r**2) if outer else (C // r**2, r, r)
    x = x.reshape(B, H, W, *split)
    x = x.transpose((0, 1, 3, 2, 4, 5) if outer else (0, 1, 4, 2, 5, 3))
    return x.reshape(B, H * r, W * r, C // r**2)


# Each operation, of an MLX or NumPy array and a factor.
ENLARGING: dict[str, Callable[[Any, int], Any]] = {
    "DepthToSpace": partial(_shuffle, outer=True),
    "PixelShuffle": partial(_shuffle, outer=False),
}
SHUFFLES: dict[str, Callable[[Any, int], Any]] = {
    **ENLARGING,
    "SpaceToDepth": partial(_unshuffle, outer=True),
    "PixelUnshuffle": partial(_unshuffle, outer=False),
}
