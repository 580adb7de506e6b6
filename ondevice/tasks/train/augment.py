"""Random changes to training images, each decided by a random generator of its own.

Papers: https://arxiv.org/abs/1909.13719 (RandAugment), https://arxiv.org/abs/1708.04896 (random
erasing), https://arxiv.org/abs/1710.09412 (mixup), https://arxiv.org/abs/1905.04899 (CutMix),
https://arxiv.org/abs/1906.06423 (FixRes)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...config import Preprocess

if TYPE_CHECKING:
    from PIL import Image

    Array = np.ndarray[Any, Any]
    Change = Callable[[Image.Image, float, tuple[int, int, int]], Image.Image]

RATIO = (3 / 4, 4 / 3)  # width over height of a crop, before it is resized to a square
ATTEMPTS = 10


@dataclass(frozen=True)
class Augment:
    """How far training images are changed.

    ``scale`` is the share of an image that a crop keeps; ``changes`` of ``CHANGES`` are made
    to each, of ``strength`` from 0 to 1; ``erase`` and ``mix`` are shares of images in which a
    rectangle is noise, and of batches whose images are blended in pairs. ``size`` is the side
    in pixels of a training image; 0: that of the model's input. A crop shows things larger
    than they are in use, so a smaller one comes closer, and costs less (FixRes).
    """

    scale: tuple[float, float] = (0.35, 1.0)
    flip: bool = True
    changes: int = 1
    strength: float = 0.3
    erase: float = 0.1
    mix: float = 0.0
    size: int = 0

    def __call__(self, image: Image.Image, spec: Preprocess, rng: np.random.Generator) -> Array:
        """An RGB image as (side, side, 3) uint8 pixel values."""
        from PIL import Image

        fill = tuple(round(255 * value) for value in spec.mean)
        box = _box(image.size, self.scale, rng)
        filter_ = Image.Resampling.BICUBIC if rng.random() < 0.5 else Image.Resampling.BILINEAR
        image = image.resize((self.size or spec.size,) * 2, filter_, box=box, reducing_gap=2.0)
        if self.flip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for change in rng.choice(len(CHANGES), self.changes):
            strength = self.strength * rng.uniform(-1, 1)
            image = list(CHANGES.values())[change](image, strength, fill)
        pixels = np.array(image)
        if rng.random() < self.erase:
            _erase(pixels, rng)
        return pixels

    def labelled(
        self, image: Image.Image, label: int, spec: Preprocess, rng: np.random.Generator
    ) -> tuple[Array, int]:
        """The same with its class, which stays."""
        return self(image, spec, rng), label


AUGMENTS = {  # by name: for a network that learns too little, for one that learns by heart
    "light": Augment(scale=(0.65, 1.0), changes=0, erase=0.0),
    "usual": Augment(),
    "strong": Augment(scale=(0.25, 1.0), changes=2, strength=0.5, erase=0.25, mix=0.6),
}


def _box(
    size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random part of an image of (width, height): left, top, right, bottom."""
    width, height = size
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    side = min(size)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _erase(pixels: Array, rng: np.random.Generator) -> None:
    """Noise in a rectangle of up to a third of the (H, W, 3) image."""
    height, width, _ = pixels.shape
    left, top, right, bottom = _box((width, height), (0.02, 1 / 3), rng)
    shape = (bottom - top, right - left, 3)
    pixels[top:bottom, left:right] = rng.integers(0, 256, shape, np.uint8)


def _enhance(name: str) -> Change:
    def change(image: Image.Image, strength: float, fill: Any) -> Image.Image:
        from PIL import ImageEnhance

        changed: Image.Image = getattr(ImageEnhance, name)(image).enhance(1 + strength)
        return changed

    return change


def _affine(matrix: Callable[[float, int], tuple[float, ...]]) -> Change:
    """``matrix`` of a strength and the side gives the six numbers that PIL takes."""

    def change(image: Image.Image, strength: float, fill: tuple[int, int, int]) -> Image.Image:
        from PIL import Image

        data, method = matrix(strength, image.size[0]), Image.Transform.AFFINE
        bilinear = Image.Resampling.BILINEAR
        return image.transform(image.size, method, data, bilinear, fillcolor=fill)

    return change


def _rotate(image: Image.Image, strength: float, fill: tuple[int, int, int]) -> Image.Image:
    from PIL import Image

    return image.rotate(60 * strength, Image.Resampling.BILINEAR, fillcolor=fill)


def _auto_contrast(image: Image.Image, strength: float, fill: Any) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.autocontrast(image)


def _posterize(image: Image.Image, strength: float, fill: Any) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.posterize(image, 8 - round(4 * abs(strength)))


CHANGES: dict[str, Change] = {
    "rotate": _rotate,
    "shear x": _affine(lambda s, side: (1, s, -s * side / 2, 0, 1, 0)),
    "shear y": _affine(lambda s, side: (1, 0, 0, s, 1, -s * side / 2)),
    "shift x": _affine(lambda s, side: (1, 0, s * side / 2, 0, 1, 0)),
    "shift y": _affine(lambda s, side: (1, 0, 0, 0, 1, s * side / 2)),
    "color": _enhance("Color"),
    "contrast": _enhance("Contrast"),
    "brightness": _enhance("Brightness"),
    "sharpness": _enhance("Sharpness"),
    "auto contrast": _auto_contrast,
    "posterize": _posterize,
}


def mix(pixels: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Each image of a (B, H, W, 3) batch with another one, blended or in a rectangle.

    ``targets`` (B, classes) are mixed as the images are.
    """
    share = float(rng.beta(1.0, 1.0))
    others = np.roll(np.arange(len(pixels)), 1)
    if rng.random() < 0.5:
        blended = share * pixels + (1 - share) * pixels[others]
        mixed = blended.round().astype(np.uint8)
    else:
        _, height, width, _ = pixels.shape
        h, w = (round(n * math.sqrt(1 - share)) for n in (height, width))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        mixed = pixels.copy()
        mixed[:, top : top + h, left : left + w] = pixels[
            others, top : top + h, left : left + w
        ]
        share = 1 - h * w / (height * width)
    return mixed, share * targets + (1 - share) * targets[others]
