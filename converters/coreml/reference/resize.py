"""Resampling of the last two axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .registry import Array, evaluates, ints


def _unaligned(n: int, out: int) -> Array:
    spacing = n / out
    return np.arange(out) * spacing + 0.5 * spacing - 0.5


def _aligned(n: int, out: int) -> Array:
    return np.arange(out) * ((n - 1) / max(out - 1, 1))


def _aligned_or_middle(n: int, out: int) -> Array:
    return np.array([(n - 1) / 2]) if out == 1 else _aligned(n, out)


def _offset(n: int, out: int) -> Array:
    delta = max(1, n - 1) / out
    return (np.arange(out) + 0.5) * delta


# Where each output pixel lies in the input: the sampling modes of MIL's documentation.
_GRIDS: dict[str, Callable[[int, int], Array]] = {
    "STRICT_ALIGN_CORNERS": _aligned,
    "ALIGN_CORNERS": _aligned_or_middle,
    "DEFAULT": lambda n, out: np.arange(out) * (n / out),
    "OFFSET_CORNERS": _offset,
    "UNALIGN_CORNERS": _unaligned,
}


def _interpolate(x: Array, axis: int, out: int, mode: str) -> Array:
    n = x.shape[axis]
    grid = np.clip(_GRIDS[mode](n, out), 0, n - 1)
    low = np.floor(grid).astype(np.int64)
    part = (grid - low).astype(np.float32).reshape(-1, *[1] * (-1 - axis))
    below, above = np.take(x, low, axis), np.take(x, np.minimum(low + 1, n - 1), axis)
    return below + part * (above - below)


@evaluates("resize_bilinear")
def resize_bilinear(
    x: Array, target_size_height: int, target_size_width: int, sampling_mode: str = "DEFAULT"
) -> Array:
    x = _interpolate(x, -2, int(target_size_height), sampling_mode)
    return _interpolate(x, -1, int(target_size_width), sampling_mode)


@evaluates("upsample_bilinear")
def upsample_bilinear(
    x: Array,
    scale_factor_height: Any = 1,
    scale_factor_width: Any = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Array:
    H, W = _scaled(x, scale_factor_height, scale_factor_width)
    if half_pixel_centers is None:
        half_pixel_centers = not align_corners
    modes = {True: "UNALIGN_CORNERS", False: "DEFAULT"}
    mode = "STRICT_ALIGN_CORNERS" if align_corners else modes[bool(half_pixel_centers)]
    return resize_bilinear(x, H, W, mode)


def _scaled(x: Array, height: Any, width: Any) -> tuple[int, int]:
    H, W = x.shape[-2:]
    return int(np.floor(float(height) * H)), int(np.floor(float(width) * W))


def _nearest(x: Array, axis: int, out: int) -> Array:
    n = x.shape[axis]
    return np.take(x, np.arange(out) * n // out, axis)


@evaluates("resize_nearest_neighbor", exact=True)
def resize_nearest_neighbor(x: Array, target_size_height: int, target_size_width: int) -> Array:
    return _nearest(_nearest(x, -2, int(target_size_height)), -1, int(target_size_width))


@evaluates("upsample_nearest_neighbor", exact=True)
def upsample_nearest_neighbor(
    x: Array, scale_factor_height: Any = 1, scale_factor_width: Any = 1
) -> Array:
    return resize_nearest_neighbor(x, *_scaled(x, scale_factor_height, scale_factor_width))


@evaluates("resize")
def resize(
    x: Array,
    shape: Any,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Array:
    """The last ``resized_dims`` sizes of ``shape``; 0 keeps what x has."""
    count = int(resized_dims)
    linear = interpolation_mode == "LINEAR"
    if not linear and sampling_mode != "DEFAULT":
        raise ValueError(f"no documented rule for the nearest pixel with {sampling_mode}")
    for axis, size in zip(range(-count, 0), ints(shape)[-count:], strict=True):
        out = size or x.shape[axis]
        x = _interpolate(x, axis, out, sampling_mode) if linear else _nearest(x, axis, out)
    return x
