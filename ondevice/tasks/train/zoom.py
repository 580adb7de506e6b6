"""Random views of images of which something is known at each place: as boxes or masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...config import Preprocess
from .augment import CHANGES

if TYPE_CHECKING:
    from PIL import Image

    Array = np.ndarray[Any, Any]

COLOURS = ("color", "contrast", "brightness", "sharpness", "auto contrast", "posterize")


class Window(NamedTuple):
    """What is seen of an image, as parts of it: it may reach beyond."""

    left: float
    top: float
    width: float
    height: float

    def pixels(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in an image of ``size`` (width, height)."""
        across, down = size
        left, right = (math.floor(x * across) for x in (self.left, self.left + self.width))
        top, bottom = (math.floor(y * down) for y in (self.top, self.top + self.height))
        return left, top, max(right, left + 1), max(bottom, top + 1)


@dataclass(frozen=True)
class Zoom:
    """Abstract: how far training images are changed, and by ``labelled`` what is said of them.

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
        self, image: Image.Image, label: Any, spec: Preprocess, rng: np.random.Generator
    ) -> tuple[Array, Any]:
        """An RGB image as (size, size, 3) uint8 pixel values, and its label."""
        raise NotImplementedError

    def view(
        self, image: Image.Image, spec: Preprocess, rng: np.random.Generator
    ) -> tuple[Array, Window, bool]:
        """An RGB image as (size, size, 3) uint8 pixel values, what is seen of it, and whether
        that is mirrored."""
        from PIL import Image

        red, green, blue = (round(255 * value) for value in spec.mean)
        fill = red, green, blue
        window = self._window(rng)
        image = _cut(image, window, fill)
        size = (spec.size, spec.size)
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        mirrored = self.flip and rng.random() < 0.5
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for change in rng.choice(COLOURS, self.changes):
            image = CHANGES[change](image, self.strength * rng.uniform(-1, 1), fill)
        return np.array(image), window, mirrored

    def _window(self, rng: np.random.Generator) -> Window:
        side, ratio = rng.uniform(*self.zoom), self.stretch ** rng.uniform(-0.5, 0.5)
        width, height = side * ratio, side / ratio
        left, top = (float(rng.uniform(*sorted((0, 1 - n)))) for n in (width, height))
        return Window(left, top, width, height)


def _cut(image: Image.Image, window: Window, fill: tuple[int, int, int]) -> Image.Image:
    """A part of an image, which may be larger than it."""
    from PIL import Image

    left, top, right, bottom = window.pixels(image.size)
    found = Image.new("RGB", (right - left, bottom - top), fill)
    found.paste(image, (-left, -top))
    return found
