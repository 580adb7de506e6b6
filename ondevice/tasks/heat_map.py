"""Where a classifier looks: Grad-CAM.

Paper: https://arxiv.org/abs/1610.02391
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import ConfigError
from ..image.preprocess import preprocess

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..image.open import ImageLike

    Array = np.ndarray[Any, Any]


def heat_map(model: nn.Module, image: ImageLike, index: int | None = None) -> Array:
    """How much each place of the last map speaks for class ``index``: (h, w) from 0 to 1.

    Without an index it is the most likely class. Raises ConfigError for a model without
    classes or an index that is none of them, ImageError.
    """
    import numpy as np

    if "head" not in model or not hasattr(model, "checked_maps"):
        raise ConfigError(f"{model.info.name} has no classifier behind a map: nothing to see")
    x = model.final(model.checked_maps(preprocess(image, model.info.preprocess))[-1])
    logits: Any = model.head(model.pool(x))
    if index is None:
        index = int(logits[0].argmax().item())
    if not 0 <= index < logits.shape[-1]:
        raise ConfigError(f"class {index} of {logits.shape[-1]} classes")
    chosen = index

    def score(x: mx.array) -> mx.array:
        return model.head(model.pool(x))[0, chosen]

    weights = mx.grad(score)(x).mean(axis=(1, 2), keepdims=True)
    heat = mx.maximum((weights * x).sum(axis=-1), 0)[0]
    return np.array(heat / mx.maximum(heat.max(), 1e-12))


def overlay(pixels: Array, heat: Array, share: float = 0.5) -> Image.Image:
    """The (H, W, 3) uint8 pixel values as grey, and over them the (h, w) heat in colour."""
    import numpy as np
    from PIL import Image

    height, width, _ = pixels.shape
    values = Image.fromarray(np.round(255 * heat).astype(np.uint8))
    smooth = np.asarray(values.resize((width, height), Image.Resampling.BICUBIC)) / 255
    grey = np.asarray(Image.fromarray(pixels).convert("L"))[..., None].repeat(3, axis=-1)
    colour = np.stack([np.interp(smooth, _LEVELS, channel) for channel in _COLOURS], axis=-1)
    weight = share * smooth[..., None]
    return Image.fromarray(np.round((1 - weight) * grey + weight * colour).astype(np.uint8))


_LEVELS = (0.0, 0.5, 1.0)  # of heat, and the red, green and blue that they are drawn in
_COLOURS = ((0, 255, 255), (80, 160, 40), (160, 0, 0))
