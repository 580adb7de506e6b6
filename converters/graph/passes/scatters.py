"""Scatters as Core ML has them: rows of an array, one index a row for each axis in front."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import mlx.core as mx
import numpy as np

from ..graph import Graph, Node
from .builder import Builder, Rewrite, rewritten


def raise_scatters(graph: Graph) -> Graph:
    """``Scatter`` becomes ``ScatterRows(x, index, …, y)``: ``x[index[i], …] = y[i]``.

    Blocks that are parts of rows are written element by element.
    """
    return rewritten(graph, SCATTERS)


def _rows(to: Builder, node: Node) -> Sequence[str]:
    x, *indices, y = node.inputs
    shape, axes, like = to.shape(x), node["axes"], node.output.name
    sizes = to.shape(y)[len(to.shape(y)) - len(shape) :]
    if any(n != (1 if a in axes else shape[a]) for a, n in enumerate(sizes)):
        return _elements(to, node, sizes)
    count = prod(to.shape(indices[0]))
    flat = [to.add("Reshape", [i], (count,), (count,), like=i) for i in indices]
    rest = tuple(n for a, n in enumerate(shape) if a not in axes)
    rows = to.add("Reshape", [y], (count, *rest), (count, *rest), like=y)
    return [to.add("ScatterRows", [x, *flat, rows], shape, node["kind"], axes, like=like)]


def _elements(to: Builder, node: Node, sizes: Sequence[int]) -> Sequence[str]:
    x, *_, y = node.inputs
    shape, like = to.shape(x), node.output.name
    flat = (prod(to.shape(y)),)
    index = _flat_index(to, node, sizes)
    row = to.add("Reshape", [x], (prod(shape),), (prod(shape),), like=x)
    values = to.add("Reshape", [y], flat, flat, like=y)
    args = node["kind"], (0,)
    written = to.add("ScatterRows", [row, index, values], (prod(shape),), *args, like=like)
    return [to.add("Reshape", [written], shape, shape, like=like)]


def _flat_index(to: Builder, node: Node, sizes: Sequence[int]) -> str:
    """Where in the flattened array each element of the blocks goes, block by block."""
    (x, *indices, _), like = node.inputs, node.output.name
    shape = to.shape(x)
    steps = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    count, size = prod(to.shape(indices[0])), prod(sizes)
    inside = np.ravel_multi_index(np.indices(sizes).reshape(len(sizes), -1), shape)
    first, moving = np.zeros((count, 1), np.int64), ""
    for axis, name in zip(node["axes"], indices, strict=True):
        known = to.known(name)
        if known is not None:
            first += (known.astype(np.int64) % shape[axis]).reshape(-1, 1) * steps[axis]
            continue
        at = _scaled(to, name, shape[axis], steps[axis])
        moving = to.add("Add", [moving, at], (count,), like=at) if moving else at
    fixed = (first + inside).astype(np.int32)
    if not moving:
        return to.constant(fixed.ravel(), like)
    column = to.add("Reshape", [moving], (count, 1), (count, 1), like=moving)
    whole = to.add("Add", [column, to.constant(fixed, like)], fixed.shape, like=column)
    return to.add("Reshape", [whole], (count * size,), (count * size,), like=whole)


def _scaled(to: Builder, index: str, size: int, step: int) -> str:
    """An index of the input's, counted from the front, times what it steps over."""
    flat = (prod(to.shape(index)),)
    at = to.add("Reshape", [index], flat, flat, like=index)
    at = to.add("AsType", [at], flat, mx.int32, like=index, dtype="int32")
    zero, last, by = (to.constant(np.array(n, np.int32), index) for n in (0, size, step))
    below = to.add("Less", [at, zero], flat, like=at, dtype="bool")
    from_end = to.add("Add", [at, last], flat, like=at)
    at = to.add("Select", [below, from_end, at], flat, like=at)
    return to.add("Multiply", [at, by], flat, like=at)


SCATTERS: dict[str, Rewrite] = {"Scatter": _rows}
