"""Random changes to images with masks, each decided by a random generator of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...config import Preprocess
from ..train.zoom import Zoom

if TYPE_CHECKING:
    from PIL import Image

    from .dataset import Mask

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class MaskAugment(Zoom):
    """How far training images, and their masks, are changed."""

    def labelled(
        self, image: Image.Image, label: Mask, spec: Preprocess, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """An RGB image as (size, size, 3) uint8 pixel values, and the (size, size) classes of
        what is seen, -1 beyond the image and where none counts.

        Raises ImageError if the mask cannot be read.
        """
        pixels, window, mirrored = self.view(image, spec, rng)
        there = label.classes()
        left, top, right, bottom = window.pixels((there.shape[1], there.shape[0]))
        there = seen(there, (left, top, right - left, bottom - top), spec.size)
        return pixels, there[:, ::-1] if mirrored else there


def seen(there: Array, window: tuple[float, float, float, float], side: int) -> Array:
    """(H, W) classes as the (side, side), int16, of a window: left, top, width and height in
    pixels. Those of the nearest pixels, -1 beyond them."""
    left, top, width, height = window
    across, down = there.shape[1], there.shape[0]
    places = (np.arange(side) + 0.5) / side
    columns = np.floor(left + width * places).astype(int)
    rows = np.floor(top + height * places).astype(int)
    found = there[np.ix_(rows.clip(0, down - 1), columns.clip(0, across - 1))].astype(np.int16)
    found[(rows < 0) | (rows >= down)] = -1
    found[:, (columns < 0) | (columns >= across)] = -1
    return found
