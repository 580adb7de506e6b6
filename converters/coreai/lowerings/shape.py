"""Operations that only move data."""

from __future__ import annotations

from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ondevice.errors import UnsupportedOpError

from ...graph.graph import Node
from ..registry import lower
from ..values import reshaped, shape_of, signed, unsigned

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
