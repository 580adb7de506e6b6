"""How far scores of cells are from the classes of the pixels in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


def cells(there: Array, cell: int, classes: int) -> Array:
    """(H, W) classes, -1 of what does not count, as (H / cell, W / cell, classes) uint8: how
    many pixels of each class are in each cell of up to 15 x 15 pixels."""
    rows, columns = (n // cell for n in there.shape)
    number = np.arange(rows).repeat(cell)[:, None] * columns + np.arange(columns).repeat(cell)
    counts = there >= 0
    index = number[counts] * classes + there[counts]
    found = np.bincount(index, minlength=rows * columns * classes)
    return found.reshape(rows, columns, classes).astype(np.uint8)


def pixel_cross_entropy(scores: mx.array, counts: mx.array) -> mx.array:
    """Cross entropy of (B, h, w, classes) scores, with each pixel of ``cells``.

    The mean over images of the mean over those of an image's pixels that count: a batch may be
    cut in parts. As much as that of scores repeated for each pixel, with fewer operations.
    """
    counts = counts.astype(mx.float32)
    logs = scores - mx.logsumexp(scores, axis=-1, keepdims=True)
    sums = -(counts * logs).sum(axis=(1, 2, 3))
    return (sums / mx.maximum(counts.sum(axis=(1, 2, 3)), 1)).mean()
