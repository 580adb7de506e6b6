"""Images sampled at computed points, in whatever spelling, become one ``Resample``.

``grid_sample`` is written in MLX as four gathers whose indices are floors of coordinates.
From the coordinates and the image on, the same nodes are tried on random ones: what comes
out is compared with what a sample makes, with zeros or with the border outside.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from ..evaluate import evaluate
from ..graph import Array, Graph, Node, Shape, Value, computed, free_name
from ..ops import op
from ..resizing import sample
from .dead_code import remove_dead_code
from .resampling import known_values, whole_image

_PICKS = frozenset({"Take", "Gather", "GatherAxis"})
_KINDS = frozenset({"arithmetic", "move", "reduction"})
_EXACT = 1e-4  # of the largest value: less is rounding
_TRIES = 12  # values that may be the sample's end


def raise_samples(graph: Graph) -> Graph:
    """``Resample(image, grid; padding)``: bilinear, -1 and 1 are the edges of the image."""
    constants = dict(graph.constants)
    replaced: dict[str, list[Node]] = {}
    for found in _candidates(graph):
        replaced |= found.raised(constants)
    if not replaced:
        return graph
    nodes = [m for n in graph.nodes for m in replaced.get(n.outputs[0].name, [n])]
    return remove_dead_code(graph.with_nodes(nodes, constants=constants))


def _candidates(graph: Graph) -> Iterator[_Sample]:
    """What is picked of one image by indices that are floors of the same coordinates."""
    floors = _floors(graph)
    if not floors:
        return
    fixed = known_values(graph)
    found: dict[tuple[str, frozenset[str]], _Sample] = {}
    for node in graph.nodes:
        if node.op not in _PICKS:
            continue
        below = frozenset().union(*(floors.get(i, frozenset()) for i in node.inputs[1:]))
        root, moves = whole_image(graph, node.inputs[0])
        if not below or len(below) > 2 or len(graph.shape(root)) != 4:
            continue
        of = found.setdefault((root, below), _Sample(graph, root, sorted(below), fixed))
        of.picks.append(node)
        of.moves |= {m.output.name: m for m in moves}
    yield from (s for s in found.values() if len(s.picks) >= 2)


def _floors(graph: Graph) -> dict[str, frozenset[str]]:
    """For each value the floors that it is computed of by arithmetic."""
    found: dict[str, frozenset[str]] = {}
    for node in graph.nodes:
        if node.op == "Floor":
            found[node.output.name] = frozenset({node.output.name})
        elif op(node.op).kind in {"arithmetic", "move"} or node.op == "AsType":
            below = frozenset().union(*(found.get(i, frozenset()) for i in node.inputs))
            if below:
                found |= dict.fromkeys((v.name for v in node.outputs), below)
    return found


@dataclass
class _Sample:
    graph: Graph
    root: str
    floors: list[str]
    fixed: set[str]
    picks: list[Node] = field(default_factory=list)
    moves: dict[str, Node] = field(default_factory=dict)

    @property
    def coordinates(self) -> list[Value]:
        producer = self.graph.producer
        names = dict.fromkeys(producer[name].inputs[0] for name in self.floors)
        return [self.graph.values[name] for name in names]

    def raised(self, constants: dict[str, Array]) -> dict[str, list[Node]]:
        """The nodes to put in the place of the sample's last one, if it is one."""
        points = self._points()
        if points is None:
            return {}
        nodes = self._region()
        ends = [v for n in nodes for v in n.outputs if self._may_end(v)][-_TRIES:]
        if not ends:
            return {}
        for form in self._forms(points, nodes, ends):
            return {form.end.name: form.nodes(constants)}
        return {}

    # -- the region -------------------------------------------------------------------------

    def _points(self) -> Shape | None:
        """The shape (B, N, M) of the points, if the coordinates have one."""
        shapes = {v.shape for v in self.coordinates}
        if len(shapes) != 1:
            return None
        (shape,) = shapes
        if len(self.coordinates) == 1:
            if shape[-1:] != (2,):
                return None
            shape = shape[:-1]
        batch = self.graph.shape(self.root)[0]
        if batch != 1 and shape[:1] != (batch,):
            return None
        if len(shape) == 3 and shape[0] == batch:
            return shape
        return batch, math.prod(shape) // batch, 1

    def _region(self) -> list[Node]:
        """What is computed of image and coordinates alone, in order."""
        graph, order = self.graph, self._places()
        inside = {self.root, *self.moves, *(v.name for v in self.coordinates)}
        todo = [order[r.outputs[0].name] for name in inside for r in graph.consumers[name]]
        heapq.heapify(todo)
        found: dict[str, Node] = {}
        while todo:
            node = graph.nodes[heapq.heappop(todo)]
            name = node.outputs[0].name
            is_ours = op(node.op).kind in _KINDS or node.op in {"AsType", "Floor"}
            if name in found or not is_ours or not inside | self.fixed >= set(node.inputs):
                continue
            found[name] = node
            for value in node.outputs:
                inside.add(value.name)
                for reader in graph.consumers[value.name]:
                    heapq.heappush(todo, order[reader.outputs[0].name])
        return list(found.values())

    def _places(self) -> Mapping[str, int]:
        return {n.outputs[0].name: i for i, n in enumerate(self.graph.nodes)}

    def _may_end(self, value: Value) -> bool:
        rest = self.graph.shape(self.root)[1:]
        points = self.coordinates[0].shape
        count = math.prod(points) // (2 if len(self.coordinates) == 1 else 1)
        sizes = {math.prod(rest) // (h * w) * count for h, w in (rest[:2], rest[1:])}
        picked = {p.output.name for p in self.picks}
        is_float = value.dtype.startswith("float") and value.name not in picked
        return is_float and math.prod(value.shape) in sizes

    # -- trying -----------------------------------------------------------------------------

    def _forms(self, points: Shape, nodes: list[Node], ends: list[Value]) -> Iterator[_Form]:
        """The form of the sample, if one fits."""
        rng = np.random.default_rng(0)
        image = rng.normal(size=self.graph.shape(self.root)).astype(np.float32)
        _, a, b, c = image.shape
        for last, (H, W) in ((True, (a, b)), (False, (b, c))):
            for flipped in (False, True):
                given, is_safe = self._given(nodes, points, (H, W), flipped)
                if given is None:
                    continue
                got = self._run(nodes, ends, image, given)
                at = _stacked(given, points, flipped)
                grid = (2 * at + 1) / mx.array([W, H]) - 1
                x = mx.array(image if last else image.transpose(0, 2, 3, 1))
                for padding in ("zeros", "border") if is_safe else ("border",):
                    wanted = sample(x, grid, padding)
                    for end in reversed(ends):
                        moved = _matches(got[end.name], wanted)
                        if moved is not None:
                            yield _Form(self, end, points, last, flipped, padding, moved)

    def _given(
        self, nodes: list[Node], points: Shape, size: tuple[int, int], flipped: bool
    ) -> tuple[list[Array] | None, bool]:
        """Coordinates, beyond the image too unless an index would then be outside of it."""
        for margin in (1.7, 0.0):
            rng = np.random.default_rng(1)
            low = -margin
            spans = [n - 1 + margin for n in (size if flipped else size[::-1])]
            if margin == 0:
                spans = [max(n - 1e-3, 0) for n in spans]
            made = [rng.uniform(low, high, points).astype(np.float32) for high in spans]
            given = (
                [x.reshape(v.shape) for x, v in zip(made, self.coordinates, strict=False)]
                if len(self.coordinates) == 2
                else [np.stack(made, axis=-1).reshape(self.coordinates[0].shape)]
            )
            if self._is_inside(nodes, given):
                return given, margin > 0
        return None, False

    def _is_inside(self, nodes: list[Node], given: list[Array]) -> bool:
        """Whether all indices for these coordinates are ones of the image."""
        indices = {i: p for p in self.picks for i in p.inputs[1:] if i not in self.fixed}
        image = np.zeros(self.graph.shape(self.root), np.float32)
        values = [self.graph.values[i] for i in indices]
        found = self._run(nodes, values, image, given)
        for pick in self.picks:
            shape = self.graph.shape(pick.inputs[0])
            axes = pick["axes"] if pick.op == "Gather" else (pick["axis"],)
            for name, axis in zip(pick.inputs[1:], axes, strict=True):
                if name in found:
                    index = np.array(found[name])
                    if index.min() < -shape[axis] or index.max() >= shape[axis]:
                        return False
        return True

    def _run(
        self, nodes: list[Node], ends: list[Value], image: Array, given: list[Array]
    ) -> dict[str, mx.array]:
        inputs = (self.graph.values[self.root], *self.coordinates)
        computed_here = {v.name for v in inputs}
        known = [
            n
            for n in self.graph.nodes
            if n.outputs[0].name in self.fixed and n.outputs[0].name not in computed_here
        ]
        moves = [m for m in self.moves.values() if m.output.name not in computed_here]
        part = Graph(
            inputs=inputs,
            outputs=tuple(v.name for v in ends),
            constants=self.graph.constants,
            nodes=tuple(_in_order(self.graph, [*known, *moves, *nodes])),
        )
        return evaluate(remove_dead_code(part), image, *given)


def _in_order(graph: Graph, nodes: list[Node]) -> list[Node]:
    wanted = {n.outputs[0].name for n in nodes}
    return [n for n in graph.nodes if n.outputs[0].name in wanted]


def _stacked(given: list[Array], points: Shape, flipped: bool) -> mx.array:
    """Coordinates as (B, N, M, 2), x first."""
    if len(given) == 1:
        at = given[0].reshape(*points, 2)
        return mx.array(at[..., ::-1].copy() if flipped else at)
    x, y = given[::-1] if flipped else given
    return mx.array(np.stack([x.reshape(points), y.reshape(points)], axis=-1))


def _matches(got: mx.array, wanted: mx.array) -> bool | None:
    """Whether the channels come before the points in ``got``; None if it is something else."""
    B, N, M, C = wanted.shape
    if got.size != wanted.size:
        return None
    limit = _EXACT * mx.abs(wanted).max()
    forms = ((False, (B, N, M, C), wanted), (True, (B, C, N, M), wanted.transpose(0, 3, 1, 2)))
    for moved, shape, other in forms:
        if bool(mx.abs(got.reshape(shape) - other).max() <= limit):
            return moved
    return None


@dataclass
class _Form:
    """What a sample was found to be."""

    sample: _Sample
    end: Value
    points: Shape
    last: bool  # the image's channels are its last axis
    flipped: bool  # the first coordinate is y
    padding: str
    moved: bool  # the result's channels come before its points

    def nodes(self, constants: dict[str, Array]) -> list[Node]:
        root = self.sample.graph.values[self.sample.root]
        made: list[Node] = []

        def emit(op: str, inputs: list[str], shape: Shape, *args: object) -> str:
            value = Value(f"{self.end.name}.sampled.{len(made)}", shape, root.dtype)
            made.append(Node(op, tuple(inputs), (value,), args))
            return value.name

        def constant(*numbers: float) -> str:
            name = free_name(computed("sample"), constants)
            constants[name] = np.array(numbers, np.float32).reshape(-1)
            return name

        B, *rest = root.shape
        (H, W), C = (rest[:2], rest[2]) if self.last else (rest[1:], rest[0])
        image = root.name
        if not self.last:
            image = emit("Transpose", [image], (B, H, W, C), (0, 2, 3, 1))
        flat, both = (*self.points, 1), (*self.points, 2)
        if len(self.sample.coordinates) == 1 and not self.flipped:
            x = emit("Reshape", [self.sample.coordinates[0].name], both, both)
            x = emit("Multiply", [x, constant(2 / W, 2 / H)], both)
            grid = emit("Add", [x, constant(1 / W - 1, 1 / H - 1)], both)
            return self._sampled(emit, made, image, grid)
        parts = []
        for name, n in zip(self._split(emit), (W, H), strict=True):
            x = emit("Reshape", [name], flat, flat)
            x = emit("Multiply", [x, constant(2 / n)], flat)
            parts.append(emit("Add", [x, constant(1 / n - 1)], flat))
        grid = emit("Concatenate", parts, both, 3)
        return self._sampled(emit, made, image, grid)

    def _sampled(self, emit: Any, made: list[Node], image: str, grid: str) -> list[Node]:
        root = self.sample.graph.shape(self.sample.root)
        channels = root[-1] if self.last else root[1]
        shape: Shape = (*self.points, channels)
        name = emit("Resample", [image, grid], shape, self.padding)
        if self.moved:
            shape = (self.points[0], channels, *self.points[1:])
            name = emit("Transpose", [name], shape, (0, 3, 1, 2))
        return [*made, Node("Reshape", (name,), (self.end,), (self.end.shape,))]

    def _split(self, emit: Any) -> list[str]:
        """The names of the coordinates x and y."""
        coordinates = self.sample.coordinates
        if len(coordinates) == 2:
            names = [v.name for v in coordinates]
        else:
            (both,) = coordinates
            rank, after = len(both.shape), (*both.shape[:-1], 1)
            names = [
                emit(
                    "Slice",
                    [both.name],
                    after,
                    (*[0] * (rank - 1), i),
                    (*both.shape[:-1], i + 1),
                    (1,) * rank,
                )
                for i in (0, 1)
            ]
        return names[::-1] if self.flipped else names
