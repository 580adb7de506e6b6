"""Random changes to images with boxes, each decided by a random generator of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...config import Preprocess
from ..train.augment import CHANGES

if TYPE_CHECKING:
    from PIL import Image

    Array = np.ndarray[Any, Any]

Objects = tuple[tuple[int, float, float, float, float], ...]  # the class, and the box's
# centre, width and height as parts of the image

COLOURS = ("color", "contrast", "brightness", "sharpness", "auto contrast", "posterize")
KEPT = 0.4  # of a box's area has to be seen: the rest of an object says too little


@dataclass(frozen=True)
class BoxAugment:
    """How far training images, and the boxes in them, are changed.

    ``zoom`` is the least and the largest side of what is seen, as a part of the image's: more
    than 1 shows an edge around it. Its width and height differ by up to a factor ``stretch``.
    ``changes`` of ``COLOURS`` are made to each image, of ``strength`` from 0 to 1.
    """

    zoom: tuple[float, float] = (0.6, 1.3)
    stretch: float = 1.2
    flip: bool = True
    changes: int = 1
    strength: float = 0.3

    def labelled(
        self, image: Image.Image, label: Objects, spec: Preprocess, rng: np.random.Generator
    ) -> tuple[Array, Objects]:
        """An RGB image as (size, size, 3) uint8 pixel values, and those of its objects that can
        still be seen."""
        from PIL import Image

        red, green, blue = (round(255 * value) for value in spec.mean)
        fill = red, green, blue
        left, top, width, height = window = self._window(rng)
        image = _cut(image, window, fill)
        size = (spec.size, spec.size)
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        boxes = np.array(label, np.float64).reshape(-1, 5)
        boxes[:, 1:] = (boxes[:, 1:] - (left, top, 0, 0)) / (width, height, width, height)
        if self.flip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            boxes[:, 1] = 1 - boxes[:, 1]
        for change in rng.choice(COLOURS, self.changes):
            image = CHANGES[change](image, self.strength * rng.uniform(-1, 1), fill)
        return np.array(image), seen(boxes)

    def _window(self, rng: np.random.Generator) -> tuple[float, float, float, float]:
        """What is seen of an image: left, top, width and height as parts of it."""
        side, ratio = rng.uniform(*self.zoom), self.stretch ** rng.uniform(-0.5, 0.5)
        width, height = side * ratio, side / ratio
        left, top = (float(rng.uniform(*sorted((0, 1 - n)))) for n in (width, height))
        return left, top, width, height


def _cut(
    image: Image.Image, window: tuple[float, float, float, float], fill: tuple[int, int, int]
) -> Image.Image:
    """A part of an image, which may be larger than it."""
    from PIL import Image

    across, down = image.size
    left, right = (math.floor(x * across) for x in (window[0], window[0] + window[2]))
    top, bottom = (math.floor(y * down) for y in (window[1], window[1] + window[3]))
    found = Image.new("RGB", (max(right - left, 1), max(bottom - top, 1)), fill)
    found.paste(image, (-left, -top))
    return found


def seen(boxes: Array) -> Objects:
    """Those of (M, 5) classes and boxes that lie well inside the image, cut off at its edge."""
    low, high = ((boxes[:, 1:3] + s * boxes[:, 3:] / 2).clip(0, 1) for s in (-1, 1))
    inside = (high - low).prod(axis=1) >= KEPT * boxes[:, 3:].prod(axis=1)
    inside &= (high > low).all(axis=1)
    cut = np.concatenate([boxes[:, :1], (low + high) / 2, high - low], axis=1)[inside]
    return tuple((int(c), *map(float, box)) for c, *box in cut)  # type: ignore[misc]
