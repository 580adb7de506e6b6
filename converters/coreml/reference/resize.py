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


@evaluates("resample")
def resample(
    x: Array,
    coordinates: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Any,
    coordinates_mode: str,
    align_corners: Any,
) -> Array:
    """Bilinear, with a number or the nearest pixel outside; coordinates are (x, y)."""
    at = _pixels(coordinates, x.shape[-2:], coordinates_mode, bool(align_corners))
    if sampling_mode != "bilinear" or padding_mode not in {"constant", "border"}:
        raise ValueError(f"no rule for {sampling_mode} samples with {padding_mode} outside")
    B, C, H, W = x.shape
    size = np.array([W, H])
    at = np.clip(at, 0, size - 1) if padding_mode == "border" else at
    low = np.floor(at)
    part = (at - low).astype(np.float32)
    y = np.zeros((B, C, *coordinates.shape[1:3]), np.float32)
    batch = np.arange(B)[:, None, None]
    for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = np.moveaxis((low + corner).astype(np.int64), -1, 0)
        inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
        pixels = x[batch, :, np.clip(row, 0, H - 1), np.clip(column, 0, W - 1)]
        found = np.where(inside[..., None], pixels, np.float32(padding_value))
        weight = np.where(corner, part, 1 - part).prod(axis=-1)
        y += np.moveaxis(found * weight[..., None], -1, 1)
    return y


def _pixels(points: Array, size: tuple[int, int], mode: str, aligned: bool) -> Array:
    """Points (x, y) in pixels, the first one's center at zero."""
    count = np.array(size[::-1], np.float32)
    if mode == "unnormalized":
        return points
    share = points if mode == "normalized_zero_to_one" else (points + 1) / 2
    return share * (count - 1) if aligned else share * count - 0.5
