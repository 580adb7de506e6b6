"""Maps in another size, by the formulas of PyTorch's ``interpolate`` without antialiasing."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import mlx.core as mx

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_CUBIC, _PIL_CUBIC = -0.75, -0.5  # the slope at 1 of PyTorch's cubic kernel, and of PIL's


def bilinear(x: mx.array, size: tuple[int, int], *, align_corners: bool = False) -> mx.array:
    """(B, H, W, C) map to (B, *size, C).

    Edges of the map are mapped to edges, or with ``align_corners`` the centers of its corners.
    """
    for axis, out in zip((1, 2), size, strict=True):
        n = x.shape[axis]
        if n != out:
            x = _along(x, axis, *_linear(n, out, align_corners))
    return x


def _along(x: mx.array, axis: int, low: Array, part: Array) -> mx.array:
    """Between the elements ``low`` and those behind them, ``part`` of the way."""
    import numpy as np

    high = np.minimum(low + 1, x.shape[axis] - 1)
    weight = mx.array(part.reshape([-1 if a == axis else 1 for a in range(4)]), x.dtype)
    first, second = (mx.take(x, mx.array(i), axis=axis) for i in (low, high))
    return first * (1 - weight) + second * weight


@cache
def _linear(n: int, out: int, align_corners: bool) -> tuple[Array, Array]:
    """For each of ``out`` elements the one of ``n`` below it, and how far above that it is."""
    import numpy as np

    if align_corners:
        at = np.arange(out) * ((n - 1) / max(out - 1, 1))
    else:
        at = np.clip((np.arange(out) + 0.5) * n / out - 0.5, 0, n - 1)
    low = np.floor(at).astype(np.int32)
    return low, (at - low).astype(np.float32)


def bicubic(x: mx.array, size: tuple[int, int], *, antialias: bool = False) -> mx.array:
    """(H, W, C) map to (*size, C), edges mapped to edges: of tables of positions.

    ``antialias`` takes PIL's kernel, as wide as what is left out, cut off at the edges.
    """
    H, W, C = x.shape
    weights = _pil_cubic if antialias else _cubic
    rows, columns = (mx.array(weights(n, out)) for n, out in zip((H, W), size, strict=True))
    x = (rows @ x.reshape(H, W * C)).reshape(-1, W, C)
    return columns @ x


@cache
def _cubic(n: int, out: int) -> Array:
    """(out, n): what each element counts for each of the new ones."""
    import numpy as np

    at = (np.arange(out) + 0.5) * n / out - 0.5
    low = np.floor(at).astype(np.int64)
    found = np.zeros((out, n), np.float64)
    for step in range(-1, 3):
        weight = _kernel(np.abs(at - (low + step)), _CUBIC)
        np.add.at(found, (np.arange(out), np.clip(low + step, 0, n - 1)), weight)
    return found.astype(np.float32)


@cache
def _pil_cubic(n: int, out: int) -> Array:
    """As ``_cubic``."""
    import numpy as np

    scale = max(n / out, 1)
    at = (np.arange(out)[:, None] + 0.5) * n / out - 0.5
    distance = np.abs(np.arange(n) - at) / scale
    weights = np.where(distance < 2, _kernel(distance, _PIL_CUBIC), 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _kernel(distance: Array, slope: float) -> Array:
    """Keys' cubic kernel, up to a distance of 2."""
    import numpy as np

    near = ((slope + 2) * distance - (slope + 3)) * distance**2 + 1
    far = slope * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)
