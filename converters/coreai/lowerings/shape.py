"""Operations that only move data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ondevice.errors import UnsupportedOpError

from ...graph.graph import Node
from ..registry import lower
from ..values import dtype_of, reshaped, shape_of, signed, unsigned

Ints = tuple[int, ...]


@lower("Reshape")
def reshape(node: Node, x: Value, shape: Ints) -> Value:
    return ca.reshape(x, signed(node.output.shape))


@lower("Transpose")
def transpose(node: Node, x: Value, axes: Ints) -> Value:
    return ca.transpose(x, unsigned(axes))


@lower("Split")
def split(node: Node, x: Value, indices: Ints, axis: int) -> tuple[Value, ...]:
    sizes = [v.shape[axis] for v in node.outputs]
    return tuple(ca.split(x, unsigned(sizes), np.int32(axis)))


@lower("Concatenate")
def concatenate(node: Node, *rest: Any) -> Value:
    *parts, axis = rest
    return ca.concat(np.int32(axis), parts)


@lower("Slice")
def slice_(node: Node, x: Value, start: Ints, stop: Ints, step: Ints) -> Value:
    """Backwards is a slice of what was reversed."""
    sizes = shape_of(x)
    taken = [
        range(*slice(*each).indices(n))
        for *each, n in zip(start, stop, step, sizes, strict=True)
    ]
    back = [axis for axis, r in enumerate(taken) if r.step < 0]
    if back:
        x = ca.reverse(x, signed(back))
    begin = [
        n - 1 - r.start if r.step < 0 else r.start for r, n in zip(taken, sizes, strict=True)
    ]
    by = [abs(r.step) for r in taken]
    end = [b + (len(r) - 1) * s + 1 for b, s, r in zip(begin, by, taken, strict=True)]
    return ca.slice_(x, signed(begin), signed(end), signed(by))


@lower("Pad")
def pad(node: Node, x: Value, value: Value, axes: Ints, low: Ints, high: Ints) -> Value:
    around = np.zeros((len(shape_of(x)), 2), np.uint32)
    for axis, *sides in zip(axes, low, high, strict=True):
        around[axis] = sides
    return ca.pad(x, around.ravel(), reshaped(value, ()), "constant")


@lower("Broadcast")
def broadcast(node: Node, x: Value, shape: Ints) -> Value:
    return ca.broadcast_to(x, unsigned(node.output.shape))


@lower("Gather")
def gather(node: Node, x: Value, *rest: Any) -> Value:
    """``out[i, ...] = x[index[i], ...]`` for one index array a gathered axis."""
    *indices, axes, sizes = rest
    shape = shape_of(x)
    others = [axis for axis in range(len(shape)) if axis not in axes]
    if any(sizes[a] != shape[a] for a in others) or any(sizes[a] != 1 for a in axes):
        raise UnsupportedOpError(f"a gather of slices: {node}")
    order = [*axes, *others]
    if order != [*range(len(shape))]:
        x = ca.transpose(x, unsigned(order))
    grid = shape_of(indices[0])
    columns = [reshaped(index, (*grid, 1)) for index in indices]
    joined = columns[0] if len(columns) == 1 else ca.concat(np.int32(len(grid)), columns)
    return reshaped(ca.gather_nd(x, joined), node.output.shape)


@lower("GatherAxis")
def gather_axis(node: Node, x: Value, index: Value, axis: int) -> Value:
    return ca.gather_along_axis(x, index, np.int32(axis))


@lower("Take")
def take(node: Node, x: Value, index: Value, axis: int) -> Value:
    return taken(x, index, axis)


def taken(x: Value, index: Any, axis: int) -> Value:
    """The elements along an axis that an index names, whose axes take that one's place."""
    rank, is_known = len(shape_of(x)), isinstance(index, np.ndarray)
    grid, axis = index.shape if is_known else shape_of(index), axis % rank
    rows = ca.transpose(x, unsigned([axis, *(a for a in range(rank) if a != axis)]))
    at = index.astype(np.int32)[..., None] if is_known else reshaped(index, (*grid, 1))
    found = ca.gather_nd(rows, at)
    after = [*range(len(grid), len(grid) + rank - 1)]
    return ca.transpose(found, unsigned([*after[:axis], *range(len(grid)), *after[axis:]]))


@lower("AsStrided")
def as_strided(node: Node, x: Value, shape: Ints, strides: Ints, offset: int) -> Value:
    """Overlapping windows, say: each element is taken from where it lies."""
    steps = (
        np.arange(n).reshape([-1 if a == axis else 1 for a in range(len(shape))]) * step
        for axis, (n, step) in enumerate(zip(shape, strides, strict=True))
    )
    places = np.broadcast_to(sum(steps, np.array(offset)), shape)
    return reshaped(taken(reshaped(x, (int(np.prod(shape_of(x))),)), places.ravel(), 0), shape)


@lower("EdgePad")
def edge_pad(node: Node, x: Value, _: Value, axes: Ints, low: Ints, high: Ints) -> Value:
    around = np.zeros((len(shape_of(x)), 2), np.uint32)
    for axis, *sides in zip(axes, low, high, strict=True):
        around[axis] = sides
    return ca.pad(x, around.ravel(), np.zeros((), dtype_of(x)), "replicate")


_COMBINED = {"none": "update", "sum": "add", "prod": "mul", "max": "max", "min": "min"}


@lower("ScatterAxis")
def scatter_axis(node: Node, x: Value, index: Value, y: Value, kind: str, axis: int) -> Value:
    if shape_of(y) != shape_of(index):
        y = ca.broadcast_to(y, unsigned(shape_of(index)))
    return _scattered(x, _positive(index, shape_of(x)[axis]), y, kind, axis)


@lower("ScatterRows")
def scatter_rows(node: Node, x: Value, *rest: Any) -> Value:
    """``out[index[i]] = y[i]``, or what ``kind`` makes of both, for one index array an axis.

    Core AI combines along one axis only: the rows that are named become that one.
    """
    *indices, y, kind, axes = rest
    order = [*axes, *(a for a in range(len(shape_of(x))) if a not in axes)]
    turned = ca.transpose(x, unsigned(order))
    named, kept = shape_of(turned)[: len(axes)], shape_of(turned)[len(axes) :]
    at = _flat([_positive(i, n) for i, n in zip(indices, named, strict=True)], named)
    count, width = shape_of(at)[0], math.prod(kept)
    at = ca.broadcast_to(reshaped(at, (count, 1)), unsigned([count, width]))
    rows = reshaped(turned, (math.prod(named), width))
    written = _scattered(rows, at, reshaped(y, (count, width)), kind, axis=0)
    back = unsigned([int(a) for a in np.argsort(order)])
    return ca.transpose(reshaped(written, (*named, *kept)), back)


def _positive(index: Value, size: int) -> Value:
    """An index that counts from the front, as MLX also takes one from the end."""
    from_end = ca.broadcasting_greater(np.int32(0), index)
    return ca.broadcasting_where(from_end, ca.broadcasting_add(index, np.int32(size)), index)


def _flat(indices: Sequence[Value], sizes: Ints) -> Value:
    """The index into the flattened axes that the indices are of."""
    flat, *others = indices
    for index, size in zip(others, sizes[1:], strict=True):
        flat = ca.broadcasting_add(ca.broadcasting_mul(flat, np.int32(size)), index)
    return flat


def _scattered(x: Value, at: Value, y: Value, kind: str, axis: int) -> Value:
    mode = _COMBINED[kind]
    return ca.scatter_along_axis(x.type, x, at, y, np.int32(axis), scatter_mode=mode)
