"""Operations that only move data."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var

from ondevice.errors import UnsupportedOpError

from ...graph.graph import Node
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
    """A negative step runs to the front, which MIL says with a mask."""
    to_front = [by < 0 and end < 0 for end, by in zip(stop, step, strict=True)]
    return mb.slice_by_index(
        x=x, begin=list(start), end=list(stop), stride=list(step), end_mask=to_front
    )


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
def gather(node: Node, x: Any, *rest: Any) -> Var:
    """``out[i, ...] = x[index[i], ...]`` for one index array a gathered axis."""
    *indices, axes, sizes = rest
    shape = tuple(x.shape)
    whole = all(
        s == n for a, (s, n) in enumerate(zip(sizes, shape, strict=True)) if a not in axes
    )
    if not whole or any(sizes[a] != 1 for a in axes):
        raise UnsupportedOpError(f"a gather of slices: {node}")
    if len(axes) == 1:
        y = _front(mb.gather(x=x, indices=indices[0], axis=axes[0]), axes[0], indices[0])
    elif axes == tuple(range(len(axes))) and all(i.val is not None for i in indices):
        flat = np.ravel_multi_index(
            [np.asarray(i.val, int) for i in indices], shape[: len(axes)]
        )
        rows = mb.reshape(x=x, shape=[-1, *shape[len(axes) :]])
        y = mb.gather(x=rows, indices=flat.astype(np.int32), axis=0)
    else:
        raise UnsupportedOpError(f"a gather along several axes: {node}")
    return y if tuple(y.shape) == node.output.shape else reshape(node, y, node.output.shape)


def _front(y: Var, axis: int, index: Any) -> Var:
    """Move the axes of ``index`` from ``axis`` to the front, as MLX has them."""
    rank = len(index.shape)
    order = [*range(axis, axis + rank), *range(axis), *range(axis + rank, len(y.shape))]
    return mb.transpose(x=y, perm=order) if axis and rank else y


@lower("Take")
def take(node: Node, x: Any, index: Any, axis: int) -> Var:
    return mb.gather(x=x, indices=index, axis=axis)


@lower("GatherAxis")
def gather_axis(node: Node, x: Var, index: Var, axis: int) -> Var:
    return mb.gather_along_axis(x=x, indices=index, axis=axis)
