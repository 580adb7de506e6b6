"""Images resized by gathers and weights, in whatever spelling, become one resize.

MLX has no such operation: ``nn.Upsample`` and what others write by hand gather rows and
columns by constant indices, weigh them and add them up. All of that is linear in the image,
so it is not read but tried: what it makes of noise is compared with what a resize makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import numpy as np

from ..evaluate import can_evaluate, evaluate
from ..graph import Array, Graph, Node, Shape, Value, computed, free_name
from ..resizing import apply, resize
from .dead_code import remove_dead_code

_PICKS = frozenset({"Take", "Gather", "GatherAxis"})
_MOVES = frozenset({"Reshape", "Transpose"})
_SUMS = frozenset({"Add", "Subtract"})
_EXACT = 1e-4  # of the largest value: less is rounding
_TRIES = 8  # ends of a region, or runs to read its weights


def raise_resizes(graph: Graph) -> Graph:
    """``Resize`` where Core ML has one, else two matrix products with the weights."""
    for root in (whole_image, _itself):
        raiser = _Raiser(graph)
        for region in _regions(graph, root):
            raiser.replace(region)
        nodes = [m for n in graph.nodes for m in raiser.replaced.get(n.outputs[0].name, [n])]
        graph = remove_dead_code(graph.with_nodes(nodes, constants=raiser.constants))
    return graph


@dataclass
class _Region:
    """What is computed of one value, linearly and with constants, with a gather at least."""

    root: str
    nodes: dict[str, Node] = field(default_factory=dict)

    def weighed(self) -> set[str]:
        """What is not only picked: the values of weights and sums, and what comes of them."""
        found: set[str] = set()
        for node in self.nodes.values():
            if node.op in _SUMS | {"Multiply", "Reduce"} or not found.isdisjoint(node.inputs):
                found.add(node.output.name)
        return found


Root = Callable[[Graph, str], tuple[str, list[Node]]]


def _regions(graph: Graph, root_of: Root) -> list[_Region]:
    fixed = known_values(graph)
    regions: dict[str, _Region] = {}
    inside: dict[str, _Region] = {}
    for node in graph.nodes:
        if len(node.outputs) != 1 or node.output.name in fixed:
            continue
        picks = node.op in _PICKS or (node.op == "Slice" and max(node["step"]) > 1)
        if picks and node.inputs[0] not in inside and fixed >= {*node.inputs[1:]}:
            root, moves = root_of(graph, node.inputs[0])
            region = regions.setdefault(root, _Region(root))
            region.nodes |= {m.output.name: m for m in moves}
            inside |= dict.fromkeys([root, *region.nodes], region)
        if found := _continued(graph, node, inside, fixed):
            found.nodes[node.output.name] = node
            inside[node.output.name] = found
    return [r for r in regions.values() if graph.is_float(r.root)]


def known_values(graph: Graph) -> set[str]:
    """Constants, and what is computed of them alone: large ones are not folded."""
    found = set(graph.constants)
    for node in graph.nodes:
        if found >= set(node.inputs) and can_evaluate(node):
            found.update(v.name for v in node.outputs)
    return found


def whole_image(graph: Graph, name: str) -> tuple[str, list[Node]]:
    """The value of four axes of which ``name`` is a view, or else itself, and the moves."""
    moves: list[Node] = []
    current = name
    while len(graph.shape(current)) != 4:
        maker = graph.producer.get(current)
        if maker is None or maker.op not in _MOVES:
            return name, []
        moves.insert(0, maker)
        current = maker.inputs[0]
    return current, moves


def _itself(graph: Graph, name: str) -> tuple[str, list[Node]]:
    return name, []


def _continued(
    graph: Graph, node: Node, inside: dict[str, _Region], fixed: set[str]
) -> _Region | None:
    """The region that a node belongs to, if it is linear in the region's value."""
    moving = [i for i in node.inputs if i not in fixed]
    regions = [inside.get(i) for i in moving]
    first = regions[0] if regions else None
    if first is None or any(r is not first for r in regions):
        return None
    one = len(moving) == 1
    is_sum = node.op == "Reduce" and node["kind"] == "sum"
    takes = {
        **dict.fromkeys(_PICKS, one and moving[0] == node.inputs[0]),
        **dict.fromkeys(_SUMS, not one or _is_nothing(graph, node, fixed)),
        **dict.fromkeys(_MOVES | {"Broadcast", "Slice", "Multiply", "Negative"}, one),
        "Concatenate": True,
        "Reduce": is_sum,
    }
    return first if takes.get(node.op, False) else None


def _is_nothing(graph: Graph, node: Node, fixed: set[str]) -> bool:
    """Whether what is added is zero."""
    return all(
        i in graph.constants and not graph.constants[i].any() for i in node.inputs if i in fixed
    )


# -- what a region does -------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """A value as a stack of images (B, H, W, C): reshaped to ``shape`` and then moved."""

    shape: Shape
    order: tuple[int, ...]

    def images(self, x: mx.array) -> mx.array:
        return x.reshape(self.shape).transpose(self.order)

    def back(self, x: mx.array, shape: Shape) -> mx.array:
        return x.transpose(np.argsort(self.order).tolist()).reshape(shape)


_LAST, _FIRST = (0, 1, 2, 3), (0, 2, 3, 1)  # channels last, channels first


def _views(before: Shape, after: Shape) -> Iterator[tuple[_View, _View]]:
    """Ways to see a value and what became of it as images whose size has changed."""
    if len(before) != len(after):
        return
    changed = {a for a, (n, m) in enumerate(zip(before, after, strict=True)) if n != m}
    if len(before) == 4:
        forms = [(before, after, _LAST, {1, 2}), (before, after, _FIRST, {2, 3})]
    elif len(before) == 3:
        (b0, b1, b2), (a0, a1, a2) = before, after
        forms = [
            ((1, *before), (1, *after), _LAST, {0, 1}),
            ((b0, 1, b1, b2), (a0, 1, a1, a2), _LAST, {1}),
            ((1, *before), (1, *after), _FIRST, {1, 2}),
        ]
    else:
        return
    for old, new, order, spatial in forms:
        if changed and changed <= spatial:
            yield _View(old, order), _View(new, order)


@dataclass(frozen=True)
class _Resized:
    """What may be a resize: of ``root`` to ``end``, seen as the images ``x`` and ``y``."""

    root: Value
    end: Value
    old: _View
    new: _View
    x: mx.array
    y: mx.array


class _Raiser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[str, Array] = dict(graph.constants)
        self.replaced: dict[str, list[Node]] = {}

    def replace(self, region: _Region) -> None:
        """Find the last value of a region that is a resized one, and compute it so."""
        root = self.graph.values[region.root]
        ends = [
            n.output
            for n in region.nodes.values()
            if n.op not in _PICKS and list(_views(root.shape, n.output.shape))
        ][-_TRIES:]
        if not ends:
            return
        run = _Run(self.graph, region, ends)
        noise = np.random.default_rng(0).normal(size=root.shape).astype(np.float32)
        results = run(noise)
        weighed = region.weighed()
        for end in reversed(ends):
            for old, new in _views(root.shape, end.shape):
                x, y = old.images(mx.array(noise)), new.images(results[end.name])
                seen = _Resized(root, end, old, new, x, y)
                is_weighed = end.name in weighed
                modes = ("nearest", "linear", "aligned") if is_weighed else ("nearest",)
                nodes = self._resize(seen, modes)
                if is_weighed and not nodes:
                    nodes = self._products(seen, run)
                if nodes:
                    self.replaced[end.name] = nodes
                    return

    def _resize(self, seen: _Resized, modes: Sequence[str]) -> list[Node]:
        x, y = seen.x, seen.y
        (H, W), (h, w) = x.shape[1:3], y.shape[1:3]
        for mode in modes:
            is_known = mode != "nearest" or (h % H, w % W) == (0, 0)
            if is_known and _close(resize(x, (h, w), mode), y):
                chain = _Chain(self, seen.root, seen.end)
                chain.reshape(seen.old.shape).transpose(seen.old.order)
                chain.then("Resize", tuple(y.shape), ((h, w), mode))
                chain.transpose(tuple(np.argsort(seen.new.order).tolist()))
                return chain.ended()
        return []

    def _products(self, seen: _Resized, run: _Run) -> list[Node]:
        """Weights as the region has them: cubic ones, of scales that do not fit the sizes."""
        rows, columns = (_weights(seen, axis, run) for axis in (1, 2))
        if rows is None or columns is None:
            return []
        if max(np.count_nonzero(r, axis=1).max() for r in (rows, columns)) < 2:
            return []  # no pixel is made of two
        if not _close(apply(seen.x, mx.array(rows), mx.array(columns)), seen.y):
            return []
        chain = _Chain(self, seen.root, seen.end)
        chain.reshape(seen.old.shape)
        if seen.old.order == _LAST:
            chain.transpose((0, 3, 1, 2))
        B, C, _, W = chain.value.shape
        h, w = len(rows), len(columns)
        chain.then("Matmul", (B, C, h, W), (), left=rows[None, None])
        chain.then("Matmul", (B, C, h, w), (), right=columns.T[None, None])
        if seen.new.order == _LAST:
            chain.transpose((0, 2, 3, 1))
        return chain.ended()


def _close(a: mx.array, b: mx.array) -> bool:
    return a.shape == b.shape and bool(mx.abs(a - b).max() <= _EXACT * mx.abs(b).max())


@dataclass
class _Run:
    """Computes the ends of a region, given the value that it is linear in."""

    graph: Graph
    region: _Region
    ends: Sequence[Value]

    def __call__(self, x: Array) -> dict[str, mx.array]:
        fixed = known_values(self.graph)
        nodes = [
            n
            for n in self.graph.nodes
            if n.outputs[0].name in self.region.nodes or n.outputs[0].name in fixed
        ]
        part = remove_dead_code(
            Graph(
                inputs=(self.graph.values[self.region.root],),
                outputs=tuple(v.name for v in self.ends),
                constants=self.graph.constants,
                nodes=tuple(nodes),
            )
        )
        return evaluate(part, x)


def _weights(seen: _Resized, axis: int, run: _Run) -> Array | None:
    """(out, n): what each pixel along ``axis`` counts, read off by ones in the channels."""
    shape = seen.x.shape
    B, n, C = shape[0], shape[axis], shape[3]
    per_run = B * C
    if math.ceil(n / per_run) > _TRIES:
        return None
    rows: list[Array] = []
    for start in range(0, n, per_run):
        ones = np.zeros((n, per_run), np.float32)
        count = min(per_run, n - start)
        ones[start + np.arange(count), np.arange(count)] = 1
        images = ones.reshape(n, B, C).transpose(1, 0, 2)
        images = np.broadcast_to(np.expand_dims(images, 3 - axis), shape)
        given = seen.old.back(mx.array(np.ascontiguousarray(images)), seen.root.shape)
        y = np.array(seen.new.images(run(np.array(given))[seen.end.name]))
        line = np.take(y, 0, axis=3 - axis).transpose(1, 0, 2).reshape(-1, per_run)
        rows.append(line[:, :count])
    return np.concatenate(rows, axis=1)


class _Chain:
    """Nodes one after the other, from one value to ``end``."""

    def __init__(self, raiser: _Raiser, value: Value, end: Value) -> None:
        self.raiser, self.value, self.end = raiser, value, end
        self.nodes: list[Node] = []

    def then(
        self,
        op: str,
        shape: Shape,
        args: tuple[object, ...],
        left: Array | None = None,
        right: Array | None = None,
    ) -> _Chain:
        """Append an operation on what there is, with a constant on either side of it."""
        name = f"{self.end.name}.resized.{len(self.nodes)}"
        sides = [left, None, right]
        inputs = tuple(
            self.value.name if i == 1 else self._constant(side)
            for i, side in enumerate(sides)
            if i == 1 or side is not None
        )
        self.value = Value(name, shape, self.value.dtype)
        self.nodes.append(Node(op, inputs, (self.value,), args))
        return self

    def _constant(self, array: Any) -> str:
        name = free_name(computed("weights"), self.raiser.constants)
        self.raiser.constants[name] = np.ascontiguousarray(array, np.float32)
        return name

    def reshape(self, shape: Shape) -> _Chain:
        return self if self.value.shape == shape else self.then("Reshape", shape, (shape,))

    def transpose(self, axes: tuple[int, ...]) -> _Chain:
        if axes == tuple(range(len(axes))):
            return self
        return self.then("Transpose", tuple(self.value.shape[a] for a in axes), (axes,))

    def ended(self) -> list[Node]:
        """The nodes; the last one makes ``end``."""
        self.then("Reshape", self.end.shape, (self.end.shape,))
        *nodes, last = self.nodes
        return [*nodes, replace(last, outputs=(self.end,))]
