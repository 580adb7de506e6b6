"""Colours for what is no photo: of classes, and of depth."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

RGB = tuple[int, int, int]

# Where the colours of a map of depth turn: dark and blue is far, light and yellow is near.
_TURNS = (
    (0, 0, 4),
    (61, 15, 113),
    (149, 44, 128),
    (229, 80, 100),
    (254, 159, 109),
    (252, 253, 191),
)


@cache
def palette(count: int) -> tuple[RGB, ...]:
    """``count`` colours, far apart for the first ones; class 0 is not black.

    The bits of a class's number, counted from 1, are dealt to red, green and blue in turn, the
    lowest ones to the highest bits: the colour map of PASCAL VOC.
    """
    return tuple(_colour(number + 1) for number in range(count))


def _colour(number: int) -> RGB:
    red, green, blue = (
        sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
        for channel in range(3)
    )
    return red, green, blue


def shaded(values: Array) -> Array:
    """(H, W) values from 0 to 1 as (H, W, 3) uint8 colours, from dark to light."""
    import numpy as np

    at = np.linspace(0, 1, len(_TURNS))
    channels = [np.interp(values, at, turn) for turn in zip(*_TURNS, strict=True)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
