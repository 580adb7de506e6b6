"""Random changes to images with boxes, each decided by a random generator of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...config import Preprocess
from ..train.zoom import Zoom

if TYPE_CHECKING:
    from PIL import Image

    Array = np.ndarray[Any, Any]

Objects = tuple[tuple[int, float, float, float, float], ...]  # the class, and the box's
# centre, width and height as parts of the image

KEPT = 0.4  # of a box's area has to be seen: the rest of an object says too little


@dataclass(frozen=True)
class BoxAugment(Zoom):
    """How far training images, and the boxes in them, are changed."""

    def labelled(
        self, image: Image.Image, label: Objects, spec: Preprocess, rng: np.random.Generator
    ) -> tuple[Array, Objects]:
        """An RGB image as (size, size, 3) uint8 pixel values, and those of its objects that can
        still be seen."""
        pixels, (left, top, width, height), mirrored = self.view(image, spec, rng)
        boxes = np.array(label, np.float64).reshape(-1, 5)
        boxes[:, 1:] = (boxes[:, 1:] - (left, top, 0, 0)) / (width, height, width, height)
        if mirrored:
            boxes[:, 1] = 1 - boxes[:, 1]
        return pixels, seen(boxes)


def seen(boxes: Array) -> Objects:
    """Those of (M, 5) classes and boxes that lie well inside the image, cut off at its edge."""
    low, high = ((boxes[:, 1:3] + s * boxes[:, 3:] / 2).clip(0, 1) for s in (-1, 1))
    inside = (high - low).prod(axis=1) >= KEPT * boxes[:, 3:].prod(axis=1)
    inside &= (high > low).all(axis=1)
    cut = np.concatenate([boxes[:, :1], (low + high) / 2, high - low], axis=1)[inside]
    return tuple((int(c), *map(float, box)) for c, *box in cut)  # type: ignore[misc]
