"""Operations that only move data."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var, types

from ondevice.errors import UnsupportedOpError

from ...graph.graph import Node
from ...graph.passes.orders import MAX_RANK
from ..registry import lower
from .elementwise import as_number, scalar, widened

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


@lower("EdgePad")
def edge_pad(node: Node, x: Var, _: Var, axes: Ints, low: Ints, high: Ints) -> Var:
    """Core ML repeats the edges of the last two axes only; those of others are concatenated."""
    last = {len(x.shape) - 2: (0, 0), len(x.shape) - 1: (0, 0)}
    for axis, lo, hi in zip(axes, low, high, strict=True):
        if axis in last:
            last[axis] = lo, hi
        elif lo or hi:
            first, end = (_row(x, axis, at) for at in (0, x.shape[axis] - 1))
            x = mb.concat(values=[*[first] * lo, x, *[end] * hi], axis=axis)
    pairs = [n for pair in last.values() for n in pair]
    if not any(pairs):
        return x
    return mb.pad(x=x, pad=pairs, mode="replicate", constant_val=scalar(x, 0.0))


def _row(x: Var, axis: int, at: int) -> Var:
    begin = [at if a == axis else 0 for a in range(len(x.shape))]
    size = [1 if a == axis else n for a, n in enumerate(x.shape)]
    return mb.slice_by_size(x=x, begin=begin, size=size)


@lower("AsStrided")
def as_strided(node: Node, x: Var, shape: Ints, strides: Ints, offset: int) -> Var:
    """Overlapping windows, say: each element is taken from where it lies."""
    if len(shape) > MAX_RANK:
        raise UnsupportedOpError(f"{len(shape)} axes, of which Core ML has {MAX_RANK} at most")
    steps = (
        np.arange(n).reshape([-1 if a == axis else 1 for a in range(len(shape))]) * step
        for axis, (n, step) in enumerate(zip(shape, strides, strict=True))
    )
    places = sum(steps, start=np.array(offset)).astype(np.int32)
    taken = mb.gather(x=mb.reshape(x=x, shape=[-1]), indices=places.ravel(), axis=0)
    return mb.reshape(x=taken, shape=list(shape))


@lower("Broadcast")
def broadcast(node: Node, x: Var, shape: Ints) -> Var:
    return widened(x, shape)


@lower("Gather")
def gather(node: Node, x: Any, *rest: Any) -> Var:
    """``out[i, ...] = x[index[i], ...]`` for one index array a gathered axis."""
    *indices, axes, sizes = rest
    shape = tuple(x.shape)
    whole = all(n == (1 if a in axes else shape[a]) for a, n in enumerate(sizes))
    if not whole and any(i.val is None for i in indices):
        raise UnsupportedOpError(
            "no gather of parts of rows that the input says; gather whole rows and slice them"
        )
    if not whole:
        y = _taken(x, indices, axes, sizes)
    elif len(axes) == 1:
        y = _front(mb.gather(x=x, indices=indices[0], axis=axes[0]), axes[0], indices[0])
    else:
        rest_axes = [a for a in range(len(shape)) if a not in axes]
        order = [*axes, *rest_axes]
        rows = x if order == sorted(order) else mb.transpose(x=x, perm=order)
        kept = [shape[a] for a in rest_axes]
        rows = mb.reshape(x=rows, shape=[-1, *kept])
        y = mb.gather(x=rows, indices=_flat([shape[a] for a in axes], indices), axis=0)
    return y if tuple(y.shape) == node.output.shape else reshape(node, y, node.output.shape)


def _flat(shape: list[int], indices: list[Var]) -> Any:
    """The index into the flattened axes that the indices are of."""
    if all(i.val is not None for i in indices):
        arrays = [np.asarray(i.val, int) % n for i, n in zip(indices, shape, strict=True)]
        return np.ravel_multi_index(arrays, shape).astype(np.int32)
    flat, *others = (positive(i, n) for i, n in zip(indices, shape, strict=True))
    for index, n in zip(others, shape[1:], strict=True):
        flat = mb.add(x=mb.mul(x=flat, y=np.int32(n)), y=index)
    return flat


def positive(index: Var, size: int) -> Any:
    """An index that counts from the front, as MLX also takes one from the end."""
    if index.val is not None:
        return (np.asarray(index.val, int) % size).astype(np.int32)
    from_end = mb.less(x=index, y=np.int32(0))
    return mb.select(cond=from_end, a=mb.add(x=index, y=np.int32(size)), b=index)


def _elements(shape: Ints, indices: list[Var], axes: Ints, sizes: Ints) -> Any:
    """The flat index of every element of the blocks that constant indices name."""
    grid = np.shape(indices[0].val)
    places = []
    for axis, size in enumerate(sizes):
        at = np.arange(size).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        if axis in axes:
            index = np.asarray(indices[tuple(axes).index(axis)].val, int) % shape[axis]
            at = at + index.reshape(*grid, *[1] * len(shape))
        places.append(np.broadcast_to(at, (*grid, *sizes)))
    return np.ravel_multi_index(places, shape).astype(np.int32)


def _taken(x: Var, indices: list[Var], axes: Ints, sizes: Ints) -> Var:
    places = _elements(tuple(x.shape), indices, axes, sizes)
    return mb.gather(x=mb.reshape(x=x, shape=[-1]), indices=places.ravel(), axis=0)


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
    found = mb.gather_along_axis(x=as_number(x), indices=index, axis=axis)
    return mb.cast(x=found, dtype="bool") if x.dtype == types.bool else found


_MODES = {"none": "update", "sum": "add", "prod": "mul", "max": "max", "min": "min"}


@lower("ScatterRows")
def scatter_rows(node: Node, x: Var, *rest: Any) -> Var:
    *indices, y, kind, axes = rest
    shape = tuple(x.shape)
    order = [*axes, *(a for a in range(len(shape)) if a not in axes)]
    turned = order != sorted(order)
    rows = mb.transpose(x=x, perm=order) if turned else x
    places = [positive(i, shape[a]) for i, a in zip(indices, axes, strict=True)]
    at = mb.stack(values=places, axis=1)
    written = mb.scatter_nd(data=rows, indices=at, updates=y, mode=_MODES[kind])
    return mb.transpose(x=written, perm=np.argsort(order)) if turned else written


@lower("ScatterAxis")
def scatter_axis(node: Node, x: Var, index: Var, y: Var, kind: str, axis: int) -> Var:
    at = positive(index, x.shape[axis])
    if tuple(y.shape) != tuple(index.shape):
        y = widened(y, tuple(index.shape))
    return mb.scatter_along_axis(data=x, indices=at, updates=y, axis=axis, mode=_MODES[kind])
