"""Elements picked by index: along one axis wherever it lies, which Core ML does best.

MLX picks with ``Gather``, whose result has the axes of the indices first and those of the
slices after them. ``Take(x, index; axis)`` leaves every axis in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np

from ..evaluate import fold
from ..graph import Array, Graph, Node, Shape, Value, computed, free_name
from ..ops import op
from .orders import MAX_RANK


def raise_takes(graph: Graph) -> Graph:
    """Each Gather that Core ML has no op for becomes slices, or Takes along one axis each.

    So does ``take_along_axis`` with one index for all rows. Several computed indices become
    one into the axes joined; negative ones count from the end, as in MLX.
    """
    taker = _Taker(graph)
    for node in graph.nodes:
        found = taker.gather(node) if node.op == "Gather" else False
        found = found or (node.op == "GatherAxis" and taker.gather_axis(node))
        if not found:
            taker.nodes.append(node)
    return graph.with_nodes(taker.nodes, constants=taker.constants)


class _Taker:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[str, Array] = dict(graph.constants)
        self.values: dict[str, Value] = dict(graph.values)
        self.nodes: list[Node] = []

    def gather(self, node: Node) -> bool:
        x, *indices = node.inputs
        axes, sizes, shape = node["axes"], node["sizes"], self.graph.shape(node.inputs[0])
        whole = (1 if a in axes else n for a, n in enumerate(shape))
        is_row = axes == (0,) and indices[0] not in self.constants
        in_front = is_row and len(node.output.shape) <= MAX_RANK
        if tuple(sizes) != tuple(whole) or in_front:
            return False
        picked = {a: i for a, i in zip(axes, indices, strict=True) if shape[a] != 1}
        grid = node.output.shape[: len(node.output.shape) - len(shape)]
        if not picked:
            wide = self._reshape(x, (*(1 for _ in grid), *sizes))
            full = node.output.shape
            self._end(node, self.emit("Broadcast", [wide], full, full))
        elif lines := self._lines(picked, shape, grid):
            for axis, line in lines.items():
                x = self._pick(x, axis, line)
            self._end(node, self._first(x, list(lines)))
        else:
            x = self._first(x, list(picked)) if not _adjacent(picked) else x
            start = min(picked) if _adjacent(picked) else 0
            lengths = [shape[a] for a in picked]
            index = self._joined(list(picked.values()), lengths)
            end = start + len(lengths)
            before = self.shape(x)
            x = self._reshape(x, (*before[:start], math.prod(lengths), *before[end:]))
            self._end(node, self._first(self._take(x, index, start), [start]))
        return True

    def gather_axis(self, node: Node) -> bool:
        """One index for every row: what was broadcast, or of other axes of length one."""
        (x, name), axis = node.inputs, node["axis"]
        maker = self.graph.producer.get(name)
        while maker is not None and maker.op in {"Broadcast", "AsType"}:
            name = maker.inputs[0]
            maker = self.graph.producer.get(name)
        shape, out = self.graph.shape(name), node.output.shape
        if math.prod(shape) != out[axis] or shape[axis - len(out) :][:1] != (out[axis],):
            return False
        if self.graph.shape(x)[:axis] + self.graph.shape(x)[axis + 1 :] != (
            out[:axis] + out[axis + 1 :]
        ):
            return False
        self._end(node, self._take(x, self._joined([name], [self.graph.shape(x)[axis]]), axis))
        return True

    # -- indices ----------------------------------------------------------------------------

    def _lines(self, picked: dict[int, str], shape: Shape, grid: Shape) -> dict[int, Array]:
        """A vector of indices for each axis, if each constant index varies along its own."""
        found: dict[int, Array] = {}
        used = [-1]
        for axis, name in picked.items():
            if name not in self.constants:
                return {}
            index = _counted(self.constants[name], shape[axis]).reshape(grid)
            along = [j for j, n in enumerate(grid) if n > 1 and np.ptp(index, axis=j).any()]
            if len(along) > 1 or (along and along[0] < max(used)):
                return {}
            used += along
            at = tuple(slice(None) if j in along else 0 for j in range(len(grid)))
            found[axis] = index[at].reshape(-1)
        return found if math.prod(grid) == math.prod(map(len, found.values())) else {}

    def _joined(self, names: Sequence[str], lengths: Sequence[int]) -> str:
        """One index, a vector, into all of these axes joined."""
        fixed: Any = np.zeros((), np.int32)
        total = ""
        for k, (name, length) in enumerate(zip(names, lengths, strict=True)):
            stride = math.prod(lengths[k + 1 :])
            if name in self.constants:
                fixed = fixed + _counted(self.constants[name], length) * stride
                continue
            index = self._computed(name, length)
            if stride != 1:
                index = self._with("Multiply", index, np.int32(stride))
            total = self.emit("Add", [total, index], self.shape(index)) if total else index
        if not total:
            return self.constant(fixed.reshape(-1))
        total = self._with("Add", total, fixed) if fixed.any() else total
        return self._reshape(total, (math.prod(self.shape(total)),))

    def _with(self, op: str, name: str, number: Any) -> str:
        return self.emit(op, [name, self.constant(number)], self.shape(name), dtype="int32")

    def _computed(self, name: str, length: int) -> str:
        """A computed index as int32 that counts from the front."""
        if self.values[name].dtype != "int32":
            made = self.emit("AsType", [name], self.shape(name), mx.int32, dtype="int32")
        else:
            made = name
        if _is_natural(self.graph, name):
            return made
        behind = self._with("Add", made, np.int32(length))
        zero = self.constant(np.int32(0))
        negative = self.emit("Less", [made, zero], self.shape(made), dtype="bool")
        return self.emit("Select", [negative, behind, made], self.shape(made), dtype="int32")

    # -- nodes --------------------------------------------------------------------------------

    def shape(self, name: str) -> Shape:
        return self.values[name].shape

    def constant(self, array: Any) -> str:
        name = free_name(computed("index"), self.constants)
        self.constants[name] = np.asarray(array, np.int32)
        self.values[name] = Value(name, self.constants[name].shape, "int32")
        return name

    def emit(
        self, op: str, inputs: Sequence[str], shape: Shape, *args: object, dtype: str = ""
    ) -> str:
        """Append a node; the name of what it makes, of the first input's type if of none."""
        name = computed(f"take.{len(self.values)}")
        value = Value(name, shape, dtype or self.values[inputs[0]].dtype)
        self.values[name] = value
        node = Node(op, tuple(inputs), (value,), args)
        if self.constants.keys() >= set(inputs):
            self.constants |= fold(node, self.constants)
        else:
            self.nodes.append(node)
        return name

    def _pick(self, x: str, axis: int, line: Array) -> str:
        """The elements of one axis, in a slice if they lie evenly."""
        shape = self.shape(x)
        if len(line) == shape[axis] and (line == np.arange(len(line))).all():
            return x
        by = int(line[1] - line[0]) if len(line) > 1 else 1
        if by < 1 or (np.diff(line) != by).any():
            return self._take(x, self.constant(line), axis)
        start, stop, step = [0] * len(shape), list(shape), [1] * len(shape)
        start[axis], stop[axis], step[axis] = int(line[0]), int(line[-1]) + 1, by
        after = (*shape[:axis], len(line), *shape[axis + 1 :])
        return self.emit("Slice", [x], after, tuple(start), tuple(stop), tuple(step))

    def _take(self, x: str, index: str, axis: int) -> str:
        before = self.shape(x)
        after = (*before[:axis], *self.shape(index), *before[axis + 1 :])
        return self.emit("Take", [x, index], after, axis)

    def _first(self, x: str, axes: Sequence[int]) -> str:
        """The value with these axes in front."""
        before = self.shape(x)
        order = (*axes, *(a for a in range(len(before)) if a not in axes))
        if order == tuple(range(len(before))):
            return x
        return self.emit("Transpose", [x], tuple(before[a] for a in order), order)

    def _reshape(self, x: str, shape: Shape) -> str:
        return x if self.shape(x) == shape else self.emit("Reshape", [x], shape, shape)

    def _end(self, node: Node, made: str) -> None:
        out = node.output
        self.nodes.append(Node("Reshape", (made,), (out,), (out.shape,)))


def _adjacent(axes: Iterable[int]) -> bool:
    return all(b == a + 1 for a, b in pairwise(axes))


def _counted(index: Array, length: int) -> Array:
    """Indices that count from the front."""
    index = index.astype(np.int64)
    return np.where(index < 0, index + length, index)


_NATURAL = frozenset({"ArgReduce", "ArgSort", "ArgPartition", "Arange"})
_KEEPS = frozenset({"move", "arithmetic"})  # given natural numbers, gives natural numbers
_NOT = frozenset({"Subtract", "Negative"})


def _is_natural(graph: Graph, name: str) -> bool:
    """Whether no element can be negative, as far as the graph tells."""
    seen: dict[str, bool] = {}

    def natural(name: str) -> bool:
        if name not in seen:
            seen[name] = False  # no value depends on itself
            seen[name] = _looks_natural(graph, name, natural)
        return seen[name]

    return natural(name)


def _looks_natural(graph: Graph, name: str, natural: Callable[[str], bool]) -> bool:
    maker, value = graph.producer.get(name), graph.constants.get(name)
    if value is not None:
        return bool((value >= 0).all())
    if graph.values[name].dtype.startswith("uint") or graph.values[name].dtype == "bool":
        return True
    if maker is None or maker.op in _NOT:
        return False
    if maker.op == "Maximum":
        return any(map(natural, maker.inputs))
    if maker.op == "Select":
        return all(map(natural, maker.inputs[1:]))
    keeps = maker.op == "AsType" or op(maker.op).kind in _KEEPS
    return maker.op in _NATURAL or (keeps and all(map(natural, maker.inputs)))
