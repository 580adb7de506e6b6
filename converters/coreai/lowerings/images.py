"""Images in another size, and pixels moved into channels and back: (B, C, H, W) throughout."""

from __future__ import annotations

from itertools import product
from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ...graph.graph import Node
from ...graph.resizing import MODES, weights
from ..registry import lower
from ..values import dtype_of, reshaped, scaled, shape_of, signed, unsigned
from .elementwise import floor
from .shape import taken

Ints = tuple[int, ...]
_INTERPOLATED = {"nearest": "nearest_neighbor", "linear": "linear"}


@lower("Resize")
def resize(node: Node, x: Value, size: Ints, mode: str) -> Value:
    """Whole factors are Core AI's own: half-pixel centers are an offset of zero there."""
    before = shape_of(x)[2:]
    factors = [out / n for out, n in zip(size, before, strict=True)]
    if mode in _INTERPOLATED and all(factor.is_integer() for factor in factors):
        scale, offset = np.array([1, 1, *factors], np.float32), np.zeros(4, np.float32)
        return ca.interpolate(x, signed(node.output.shape), scale, offset, _INTERPOLATED[mode])
    if mode == "nearest":
        for axis, n, out in zip((2, 3), before, size, strict=True):
            x = taken(x, MODES[mode](n, out), axis)
        return x
    rows, columns = (weights(n, out, mode) for n, out in zip(before, size, strict=True))
    kind = dtype_of(x)
    x = ca.broadcasting_batch_matmul(rows.astype(kind), x)
    return ca.broadcasting_batch_matmul(x, np.ascontiguousarray(columns.T, kind))


@lower("Resample")
def resample(node: Node, x: Value, grid: Value, padding: str) -> Value:
    """Four pixels around each point of a grid (B, N, M, 2), from -1 to 1, by their weights.

    Places are computed in float32: half precision has whole numbers up to 2048 only.
    """
    B, C, H, W = shape_of(x)
    wide = ca.cast(grid, np.float32) if dtype_of(grid) == np.float16 else grid
    columns, rows = (
        _around(node, part, n, padding)
        for part, n in zip(ca.split(wide, unsigned([1, 1]), np.int32(3)), (W, H), strict=True)
    )
    pixels = reshaped(ca.transpose(x, unsigned([0, 2, 3, 1])), (B * H * W, C))
    first = (np.arange(B, dtype=np.int32) * (H * W)).reshape(B, 1, 1, 1)
    total = None
    for (row, high), (column, across) in product(rows, columns):
        at = ca.broadcasting_add(ca.broadcasting_mul(row, np.int32(W)), column)
        found = ca.gather_nd(pixels, ca.broadcasting_add(at, first))
        weight = ca.cast(ca.broadcasting_mul(high, across), dtype_of(x).type)
        term = ca.broadcasting_mul(found, weight)
        total = term if total is None else ca.broadcasting_add(total, term)
    return ca.transpose(total, unsigned([0, 3, 1, 2]))


def _around(node: Node, x: Value, size: int, padding: str) -> list[tuple[Value, Value]]:
    """The pixels of a row of ``size`` on both sides of each point: indices, and weights."""
    last, zero, one = np.float32(size - 1), np.float32(0), np.float32(1)
    at = ca.broadcasting_add(scaled(x, size / 2), np.float32((size - 1) / 2))
    if padding == "border":
        at = ca.broadcasting_minimum(ca.broadcasting_maximum(at, zero), last)
    low = floor(node, at)
    part = ca.broadcasting_sub(at, low)
    ends = (
        (low, ca.broadcasting_sub(one, part)),
        (ca.broadcasting_add(low, one), part),
    )
    return [_inside(place, weight, last) for place, weight in ends]


def _inside(place: Value, weight: Value, last: Any) -> tuple[Value, Value]:
    """A pixel of the image; one that is outside of it counts nothing."""
    zero = np.float32(0)
    nearest = ca.broadcasting_minimum(ca.broadcasting_maximum(place, zero), last)
    is_inside = ca.broadcasting_equal(nearest, place)
    return ca.cast(nearest, np.int32), ca.broadcasting_where(is_inside, weight, zero)


def _moved(x: Value, split: Ints, order: Ints, shape: Ints) -> Value:
    return reshaped(ca.transpose(reshaped(x, split), unsigned(order)), shape)


@lower("DepthToSpace", "PixelShuffle")
def shuffle(node: Node, x: Value, r: int) -> Value:
    """Rows, then columns, so that no value has more than five axes."""
    B, C, H, W = shape_of(x)
    c = C // r**2
    if node.op == "DepthToSpace":
        x = _moved(x, (B, r, r * c, H, W), (0, 2, 3, 1, 4), (B, r * c, H * r, W))
        return _moved(x, (B, r, c, H * r, W), (0, 2, 3, 4, 1), (B, c, H * r, W * r))
    x = _moved(x, (B, c * r, r, H, W), (0, 1, 3, 4, 2), (B, c * r, H, W * r))
    return _moved(x, (B, c, r, H, W * r), (0, 1, 3, 2, 4), (B, c, H * r, W * r))


@lower("SpaceToDepth", "PixelUnshuffle")
def unshuffle(node: Node, x: Value, r: int) -> Value:
    B, C, H, W = shape_of(x)
    h, w = H // r, W // r
    if node.op == "SpaceToDepth":
        x = _moved(x, (B, C, H, w, r), (0, 4, 1, 2, 3), (B, r * C, H, w))
        return _moved(x, (B, r * C, h, r, w), (0, 3, 1, 2, 4), (B, r * r * C, h, w))
    x = _moved(x, (B, C, h, r, W), (0, 1, 3, 2, 4), (B, C * r, h, W))
    return _moved(x, (B, C * r, h, w, r), (0, 1, 4, 2, 3), (B, C * r * r, h, w))
