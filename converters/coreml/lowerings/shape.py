"""Operations that only move data."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var

from ondevice.errors import UnsupportedOpError

from ...graph import Node
from ..registry import lower

Ints = tuple[int, ...]


@lower("Reshape")
def reshape(node: Node, x: Var, shape: Ints) -> Var:
    return mb.reshape(x=x, shape=list(shape))


@lower("Transpose")
def transpose(node: Node, x: Var, axes: Ints) -> Var:
    return mb.transpose(x=x, perm=list(axes))


@lower("Split")
def split(node: Node, x: Var, indices: Ints, axis: int) -> tuple[Var, ...]:
    sizes = [v.shape[axis] for v in node.outputs]
    return tuple(mb.split(x=x, split_sizes=sizes, axis=axis))


@lower("Concatenate")
def concatenate(node: Node, *rest: Any) -> Var:
    *parts, axis = rest
    return mb.concat(values=parts, axis=axis)


@lower("Slice")
def slice_(node: Node, x: Var, start: Ints, stop: Ints, step: Ints) -> Var:
    return mb.slice_by_index(x=x, begin=list(start), end=list(stop), stride=list(step))


@lower("Pad")
def pad(node: Node, x: Var, value: Var, axes: Ints, low: Ints, high: Ints) -> Var:
    pairs = np.zeros((len(x.shape), 2), np.int32)
    for axis, lo, hi in zip(axes, low, high, strict=True):
        pairs[axis] = lo, hi
    first = int(np.flatnonzero(pairs.any(axis=1))[0])  # MIL pads trailing axes only if few
    return mb.pad(x=x, pad=pairs[first:].ravel(), mode="constant", constant_val=value.val)


@lower("Broadcast")
def broadcast(node: Node, x: Var, shape: Ints) -> Var:
    wide = (1,) * (len(shape) - len(x.shape)) + tuple(x.shape)
    y = x if wide == tuple(x.shape) else mb.reshape(x=x, shape=list(wide))
    return mb.tile(x=y, reps=[n // m for n, m in zip(shape, wide, strict=True)])


@lower("Gather")
def gather(node: Node, x: Var, *rest: Any) -> Var:
    """One index array along one axis: ``out[i, ...] = x[..., index[i], ...]``."""
    *indices, axes, sizes = rest
    whole = all(
        s == n for a, (s, n) in enumerate(zip(sizes, x.shape, strict=True)) if a not in axes
    )
    if len(indices) != 1 or len(axes) != 1 or not whole:
        raise UnsupportedOpError(f"a gather along several axes: {node}")
    ((index,), (axis,)) = indices, axes
    y = mb.gather(x=x, indices=index, axis=axis)
    if axis:
        rank = len(index.shape)
        perm = [*range(axis, axis + rank), *range(axis), *range(axis + rank, len(y.shape))]
        y = mb.transpose(x=y, perm=perm)
    return mb.reshape(x=y, shape=list(node.output.shape))


@lower("GatherAxis")
def gather_axis(node: Node, x: Var, index: Var, axis: int) -> Var:
    return mb.gather_along_axis(x=x, indices=index, axis=axis)
