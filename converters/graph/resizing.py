"""Resizing an image by weights: which input pixels each output pixel is made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def _centers(n: int, out: int) -> Array:
    return np.clip((np.arange(out) + 0.5) * n / out - 0.5, 0, n - 1)


def _corners(n: int, out: int) -> Array:
    return np.arange(out) * ((n - 1) / max(out - 1, 1))


def _nearest(n: int, out: int) -> Array:
    return np.floor(np.arange(out) * n / out)


# Where each output pixel lies in the input: "linear" maps edges to edges, "aligned" the
# centers of the corners to each other.
MODES: dict[str, Callable[[int, int], Array]] = {
    "nearest": _nearest,
    "linear": _centers,
    "aligned": _corners,
}


@cache
def weights(n: int, out: int, mode: str) -> Array:
    """(out, n): what each input pixel of a row counts for each output pixel."""
    at = MODES[mode](n, out)
    low = np.floor(at).astype(np.int64)
    found = np.zeros((out, n), np.float32)
    np.add.at(found, (np.arange(out), low), 1 - (at - low))
    np.add.at(found, (np.arange(out), np.minimum(low + 1, n - 1)), at - low)
    return found


def resize(x: mx.array, size: tuple[int, int], mode: str) -> mx.array:
    """Images (B, H, W, C) in another size (h, w)."""
    if mode == "nearest":
        rows, columns = (
            mx.array(_nearest(n, out).astype(np.int32))
            for n, out in zip(x.shape[1:3], size, strict=True)
        )
        return x[:, rows][:, :, columns]
    rows, columns = (
        mx.array(weights(n, out, mode)) for n, out in zip(x.shape[1:3], size, strict=True)
    )
    return apply(x, rows, columns)


def apply(x: mx.array, rows: mx.array, columns: mx.array) -> mx.array:
    """Images (B, H, W, C) with weights (h, H) and (w, W)."""
    B, H, W, C = x.shape
    x = (rows @ x.reshape(B, H, W * C)).reshape(B, -1, W, C)
    return columns @ x


def sample(x: mx.array, grid: mx.array, padding: str) -> mx.array:
    """Images (B, H, W, C) at the points (x, y) of a grid (B, N, M, 2): (B, N, M, C).

    -1 and 1 are the edges of an image. Outside there is zero ("zeros") or the nearest pixel
    ("border"); between pixels it is linear.
    """
    B, H, W, C = x.shape
    size = mx.array([W, H], mx.float32)
    at = ((grid + 1) * size - 1) / 2
    at = mx.clip(at, 0, size - 1) if padding == "border" else at
    low = mx.floor(at)
    part = at - low
    pixels = x.reshape(B, H * W, C)
    total: Any = 0
    for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
        place = low + mx.array(corner, mx.float32)
        weight = mx.where(mx.array(corner) == 1, part, 1 - part).prod(axis=-1)
        inside = mx.logical_and(place >= 0, place < size).all(axis=-1)
        column, row = (mx.clip(place[..., i], 0, size[i] - 1).astype(mx.int32) for i in (0, 1))
        index = (row * W + column).reshape(B, -1, 1)
        found = mx.take_along_axis(pixels, index, axis=1).reshape(*grid.shape[:-1], C)
        total = total + found * (weight * inside)[..., None]
    return total
