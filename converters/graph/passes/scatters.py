"""Scatters as Core ML has them: rows of an array, one index a row for each axis in front."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..graph import Array, Graph, Node
from .builder import Builder, Rewrite, rewritten


def raise_scatters(graph: Graph) -> Graph:
    """``Scatter`` becomes ``ScatterRows(x, index, …, y)``: ``x[index[i], …] = y[i]``.

    Blocks that are parts of rows are written element by element where the indices are
    constant, and stay what they are where the input says them.
    """
    return rewritten(graph, SCATTERS)


def _rows(to: Builder, node: Node) -> Sequence[str] | None:
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


def _elements(to: Builder, node: Node, sizes: Sequence[int]) -> Sequence[str] | None:
    x, *indices, y = node.inputs
    shape, like = to.shape(x), node.output.name
    known: list[Array] = [i for name in indices if (i := to.known(name)) is not None]
    if len(known) < len(indices):
        return None
    grid = to.shape(indices[0])
    places = []
    for axis, size in enumerate(sizes):
        at = np.arange(size).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        if axis in node["axes"]:
            index = known[node["axes"].index(axis)].astype(np.int64) % shape[axis]
            at = at + index.reshape(*grid, *[1] * len(shape))
        places.append(np.broadcast_to(at, (*grid, *sizes)))
    flat = np.ravel_multi_index(places, shape).astype(np.int32).ravel()
    index = to.constant(flat, like)
    row = to.add("Reshape", [x], (prod(shape),), (prod(shape),), like=x)
    values = to.add("Reshape", [y], flat.shape, flat.shape, like=y)
    args = node["kind"], (0,)
    written = to.add("ScatterRows", [row, index, values], (prod(shape),), *args, like=like)
    return [to.add("Reshape", [written], shape, shape, like=like)]


SCATTERS: dict[str, Rewrite] = {"Scatter": _rows}
