"""What writes to a part of an array, as operations that make a new one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mlx.core as mx
import numpy as np

from ..graph import Array, Graph, Node, Shape
from .builder import Builder, Rewrite, rewritten

Region = list[tuple[int, int, int]]  # for each axis: the first, how many, the step
_BINARY = {"max": "Maximum", "min": "Minimum", "sum": "Add", "prod": "Multiply"}


def raise_writes(graph: Graph) -> Graph:
    """``SliceUpdate`` and ``MaskedScatter`` become slices, concatenations and selects.

    A region written into an array of one number is a Pad; a number written into a region, or
    under a mask, is a Select.
    """
    return rewritten(graph, WRITES)


def _slice(to: Builder, node: Node) -> Sequence[str]:
    x, start = node.inputs
    first = to.known(start)
    if first is None:
        return [_taken(to, x, start, node)]
    begin = [0] * len(to.shape(x))
    for axis, at in zip(node["axes"], first.ravel().tolist(), strict=True):
        begin[axis] = min(max(at, 0), to.shape(x)[axis] - node["size"][axis])
    stop = tuple(b + n for b, n in zip(begin, node["size"], strict=True))
    args = (tuple(begin), stop, (1,) * len(begin))
    return [to.add("Slice", [x], node["size"], *args, like=node.output.name)]


def _taken(to: Builder, x: str, start: str, node: Node) -> str:
    """The slice from where the input says: one index after the other along each axis."""
    for i, axis in enumerate(node["axes"]):
        shape, count = to.shape(x), node["size"][axis]
        if count < shape[axis]:
            along = to.constant(np.arange(count, dtype=np.int32), start)
            index = to.add("Add", [_entry(to, start, i), along], (count,), like=along)
            after = tuple(count if a == axis else n for a, n in enumerate(shape))
            x = to.add("Take", [x, index], after, axis, like=x)
    return x


def _entry(to: Builder, start: str, i: int) -> str:
    """One of several positions, as an array of one element."""
    flat = to.add("Reshape", [start], (n := int(np.prod(to.shape(start))),), (n,), like=start)
    one = to.add("Slice", [flat], (1,), (i,), (i + 1,), (1,), like=start)
    return to.add("AsType", [one], (1,), mx.int32, like=start, dtype="int32")


def _replaced(to: Builder, node: Node) -> Sequence[str]:
    """``x`` outside, and ``y`` inside of where the input says that it starts."""
    (x, y, start), like, shape = node.inputs, node.output.name, node.output.shape
    whole = ""
    for i, axis in enumerate(node["axes"]):
        size, count = shape[axis], to.shape(y)[axis]
        if count == size:
            continue
        along, zero, last = (
            to.constant(np.array(n, np.int32), start) for n in (range(size), 0, count - 1)
        )
        at = to.add("Subtract", [along, _entry(to, start, i)], (size,), like=along)
        inside = to.add("Maximum", [at, zero], (size,), like=along)
        inside = to.add("Minimum", [inside, last], (size,), like=along)
        after = tuple(size if a == axis else n for a, n in enumerate(to.shape(y)))
        y = to.add("Take", [y, inside], after, axis, like=like)
        here = to.add("Equal", [at, inside], (size,), False, like=start, dtype="bool")
        wide = tuple(size if a == axis else 1 for a in range(len(shape)))
        here = to.add("Reshape", [here], wide, wide, like=here)
        whole = _both(to, whole, here)
    return [to.add("Select", [whole, y, x], shape, like=like) if whole else y]


def _both(to: Builder, first: str, second: str) -> str:
    if not first:
        return second
    shape = np.broadcast_shapes(to.shape(first), to.shape(second))
    return to.add("LogicalAnd", [first, second], shape, like=second)


def _overwritten(to: Builder, node: Node) -> Sequence[str]:
    x, y, start = node.inputs
    first = to.known(start)
    if first is None:
        return _replaced(to, node)
    begin = [0] * len(to.shape(x))
    for axis, at in zip(node["axes"], first.ravel().tolist(), strict=True):
        begin[axis] = at
    region = [(b, n, 1) for b, n in zip(begin, to.shape(y), strict=True)]
    return [_written(to, x, y, region, node.output.name)]


def _masked(to: Builder, node: Node) -> Sequence[str]:
    """Of one number a Select; else the running count of the mask says which one is taken."""
    x, mask, y = node.inputs
    shape, like = node.output.shape, node.output.name
    if (number := _one_number(to, y)) is not None:
        return [to.add("Select", [mask, number, x], shape, like=like)]
    flat = (shape[0], int(np.prod(shape[1:])))
    hit = to.add("Reshape", [mask], flat, flat, like=mask)
    count = to.add("AsType", [hit], flat, mx.int32, like=hit, dtype="int32")
    count = to.add("Scan", [count], flat, "sum", 1, False, True, like=count)
    one, zero = (to.constant(np.array(n, np.int32), like) for n in (1, 0))
    at = to.add("Subtract", [count, one], flat, like=count)
    at = to.add("Maximum", [at, zero], flat, like=count)
    given = (flat[0], int(np.prod(to.shape(y))) // flat[0])
    values = to.add("Reshape", [y], given, given, like=y)
    taken = to.add("GatherAxis", [values, at], flat, 1, like=like)
    taken = to.add("Reshape", [taken], shape, shape, like=like)
    return [to.add("Select", [mask, taken, x], shape, like=like)]


def _one_number(to: Builder, name: str) -> str | None:
    """A scalar constant, if all that ``name`` holds is one number."""
    value = to.known(name)
    if value is None or not value.size or (value != value.flat[0]).any():
        return None
    return to.constant(value.flat[0], name)


def _update(to: Builder, node: Node) -> Sequence[str]:
    (x, y), like = node.inputs, node.output.name
    region = _region(node, to.shape(x), to.shape(y))
    if any(step < 0 for *_, step in region):
        y = _flipped(to, y, [step < 0 for *_, step in region], like)
        region = [
            (first + (n - 1) * step, n, -step) if step < 0 else (first, n, step)
            for first, n, step in region
        ]
    if node["kind"] != "none":
        args = (
            tuple(first for first, *_ in region),
            tuple(first + (n - 1) * step + 1 for first, n, step in region),
            tuple(step for *_, step in region),
        )
        part = to.add("Slice", [x], to.shape(y), *args, like=x)
        y = to.add(_BINARY[node["kind"]], [part, y], to.shape(y), like=like)
    return [_written(to, x, y, region, like)]


def _region(node: Node, shape: Shape, part: Shape) -> Region:
    starts = zip(node["start"], part, node["step"], shape, strict=True)
    return [(first % size, n, step if n > 1 else 1) for first, n, step, size in starts]


def _flipped(to: Builder, y: str, turned: Sequence[bool], like: str) -> str:
    shape = to.shape(y)
    ends = zip(shape, turned, strict=True)
    args = zip(*((n - 1, -n - 1, -1) if t else (0, n, 1) for n, t in ends), strict=True)
    return to.add("Slice", [y], shape, *args, like=like)


def _written(to: Builder, x: str, y: str, region: Region, like: str) -> str:
    """``x`` with ``y`` in ``region``, whose steps are positive."""
    shape, value = to.shape(x), to.values[like]
    number = _one_number(to, y)
    if number is not None and (number_mask := _mask(shape, region)) is not None:
        mask = to.constant(number_mask, like)
        return to.add("Select", [mask, number, x], shape, like=like)
    around = to.known(x)
    is_plain = all(step == 1 for *_, step in region)
    is_one = around is not None and around.size and not (around != around.flat[0]).any()
    if is_plain and is_one and around is not None and value.dtype.startswith("float"):
        fill = to.constant(around.flat[0], x)
        low = tuple(first for first, *_ in region)
        high = tuple(n - f - m for n, (f, m, _) in zip(shape, region, strict=True))
        axes = tuple(range(len(shape)))
        return to.add("Pad", [y, fill], shape, axes, low, high, like=like)
    if is_plain:
        return _placed(to, x, y, region, like)
    wide, where = _spread(to, y, region, shape, like)
    whole = _placed(to, x, wide, where, like)
    mask = to.constant(_mask(shape, region), like)
    return to.add("Select", [mask, whole, x], shape, like=like)


def _mask(shape: Shape, region: Region) -> Array:
    """Where the region is: of length one along an axis that it covers."""
    mask = np.ones((1,) * len(shape), bool)
    for axis, (n, (first, count, step)) in enumerate(zip(shape, region, strict=True)):
        if count < n:
            along = np.zeros(n, bool)
            along[first : first + (count - 1) * step + 1 : step] = True
            mask = mask & along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return mask


def _placed(to: Builder, x: str, y: str, region: Region, like: str) -> str:
    """What lies before, ``y``, and what lies after, concatenated axis by axis."""
    shape = to.shape(x)
    part = [n != m for n, (_, m, _) in zip(shape, region, strict=True)]
    if not any(part):
        return y
    axis = part.index(True)
    first, count, _ = region[axis]
    edges = (0, first, first + count, shape[axis])
    before, inner, after = (_cut(to, x, axis, a, b) for a, b in pairwise(edges))
    rest = [(0, count, 1) if a == axis else r for a, r in enumerate(region)]
    middle = _placed(to, inner, y, rest, like) if inner else y
    parts = [p for p in (before, middle, after) if p]
    return to.add("Concatenate", parts, shape, axis, like=like)


def _cut(to: Builder, x: str, axis: int, first: int, stop: int) -> str:
    """``x[first:stop]`` along an axis; "" of nothing."""
    shape = to.shape(x)
    if first == stop:
        return ""
    begin = tuple(first if a == axis else 0 for a in range(len(shape)))
    end = tuple(stop if a == axis else n for a, n in enumerate(shape))
    size = tuple(e - b for b, e in zip(begin, end, strict=True))
    return to.add("Slice", [x], size, begin, end, (1,) * len(shape), like=x)


def _spread(to: Builder, y: str, region: Region, shape: Shape, like: str) -> tuple[str, Region]:
    """``y`` with each element repeated along the axes it steps over, and where that lies."""
    where = list(region)
    for axis, (first, count, step) in enumerate(region):
        if step == 1:
            continue
        before = to.shape(y)
        head, tail = int(np.prod(before[:axis])), int(np.prod(before[axis + 1 :]))
        column = to.add(
            "Reshape", [y], (head * count, 1, tail), (head * count, 1, tail), like=y
        )
        repeated = (head * count, step, tail)
        y = to.add("Concatenate", [column] * step, repeated, 1, like=like)
        after = (*before[:axis], count * step, *before[axis + 1 :])
        y = to.add("Reshape", [y], after, after, like=like)
        size = min(count * step, shape[axis] - first)
        y = _cut(to, y, axis, 0, size)
        where[axis] = (first, size, 1)
    return y, where


WRITES: dict[str, Rewrite] = {
    "DynamicSlice": _slice,
    "DynamicSliceUpdate": _overwritten,
    "MaskedScatter": _masked,
    "SliceUpdate": _update,
}
