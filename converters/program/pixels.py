"""Images as the arrays that go into a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from ondevice.config import Preprocess

    from ..graph.graph import Array
    from .stored import Feature

_EIGHT_BITS = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F"})
PIL_MODES = {"RGB": "RGB", "BGR": "RGB", "grayscale": "L", "grayscale_float16": "F"}


def is_image(value: Any) -> bool:
    """A photo, a path, a file or pixel values, rather than normalized values."""
    return isinstance(value, Image.Image) or np.asarray(value).dtype.kind in "UOu"


def as_mode(image: Any, mode: str) -> Array:
    """The pixels of a PIL image as they lie there, of a file as they are shown."""
    from ondevice.image.open import as_rgb

    if not isinstance(image, Image.Image) or image.mode not in _EIGHT_BITS:
        image = as_rgb(image)
    return np.asarray(image.convert(mode))


def normalized(pixels: Array, contract: Preprocess) -> Array:
    """Pixel values (height, width, 3) as the contract normalizes them."""
    import mlx.core as mx

    from ondevice.image.preprocess import normalize

    return np.array(normalize(mx.array(pixels), contract))


def planes(pixels: Array, feature: Feature) -> Array:
    """(height, width, channels) to the program's (1, channels, height, width)."""
    found = pixels[..., None] if pixels.ndim == 2 else pixels
    found = found[..., ::-1] if feature.dtype == "BGR" else found
    return np.ascontiguousarray(found.transpose(2, 0, 1)[None], np.float32)
