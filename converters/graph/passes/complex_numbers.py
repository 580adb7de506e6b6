"""Complex numbers inside a module as pairs of real ones: rotary positions, above all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np

from ondevice.errors import UnsupportedOpError

from ..graph import Graph, Node
from ..ops import op
from .builder import Builder

Pair = tuple[str, str]  # real and imaginary part; "" where that is zero
_MOVES = frozenset(
    "Broadcast Concatenate Gather GatherAxis Reshape Select Slice Split Transpose".split()
)


def split_complex(graph: Graph) -> Graph:
    """Every complex value becomes two real ones; where one cannot, all stay as they are.

    Raises UnsupportedOpError for inputs and outputs of complex numbers.
    """
    is_complex = {name for name, v in graph.values.items() if v.dtype == "complex64"}
    if not is_complex:
        return graph
    if crossing := graph.crossing(lambda value: value.name in is_complex):
        raise UnsupportedOpError(f"{crossing}: {op('Real').instead}")
    pairs = _Pairs(Builder(graph))
    for name, value in graph.constants.items():
        if name in is_complex:
            real, imag = value.real.copy(), value.imag.copy()
            other = pairs.to.constant(imag, name) if imag.any() else ""
            pairs.of[name] = (pairs.to.constant(real, name), other)
    for node in graph.nodes:
        names = {*node.inputs, *(v.name for v in node.outputs)}
        if is_complex.isdisjoint(names):
            pairs.to.copy(node)
        elif not pairs.add(node):
            return graph
    return pairs.to.done(pairs.real)


class _Pairs:
    """Writes what complex nodes stand for; ``real`` are the real values that come of them."""

    def __init__(self, to: Builder) -> None:
        self.to = to
        self.of: dict[str, Pair] = {}
        self.real: dict[str, str] = {}

    def add(self, node: Node) -> bool:
        rule = RULES.get(node.op) or (_moved if node.op in _MOVES else None)
        found = rule(self, node) if rule else None
        if found is None:
            return False
        for value, pair in zip(node.outputs, found, strict=True):
            if value.dtype == "complex64":
                self.of[value.name] = pair
            else:
                self.real[value.name] = pair[0]
        return True

    def pair(self, name: str) -> Pair:
        return self.of.get(name) or (self.real.get(name, name), "")

    def new(self, op: str, names: Sequence[str], like: Node, *args: object) -> str:
        """An operation on parts of the node's operands, of its shape."""
        return self.to.add(
            op, names, like.output.shape, *args, like=like.output.name, dtype="float32"
        )

    def zeros(self, like: str) -> str:
        return self.to.constant(np.zeros(self.to.shape(like), np.float32), like)

    # -- sums and products, of which a part may be zero

    def sum(self, a: str, b: str, node: Node, op: str = "Add") -> str:
        if a and b:
            return self.new(op, [a, b], node)
        if b and op == "Subtract":
            return self.new("Negative", [b], node)
        found, shape = a or b, node.output.shape
        is_narrow = bool(found) and self.to.shape(found) != shape
        return self.new("Broadcast", [found], node, shape) if is_narrow else found

    def product(self, a: str, b: str, node: Node) -> str:
        return self.new("Multiply", [a, b], node) if a and b else ""


Rule = Callable[[_Pairs, Node], "Sequence[Pair] | None"]


def _moved(to: _Pairs, node: Node) -> Sequence[Pair]:
    """The same move of both parts."""
    parts = []
    for part in (0, 1):
        inputs = []
        for name in node.inputs:
            pair = to.pair(name)
            found = pair[part] if name in to.of else pair[0]
            inputs.append(found or to.zeros(pair[0]))
        outputs = tuple(
            replace(v, name=f"{v.name}.{'real' if part == 0 else 'imag'}", dtype="float32")
            for v in node.outputs
        )
        to.to.copy(node, inputs=tuple(inputs), outputs=outputs)
        parts.append([v.name for v in outputs])
    return list(zip(*parts, strict=True))


def _added(to: _Pairs, node: Node) -> Sequence[Pair]:
    (a, b), (c, d) = map(to.pair, node.inputs)
    return [(to.sum(a, c, node, node.op), to.sum(b, d, node, node.op))]


def _multiplied(to: _Pairs, node: Node) -> Sequence[Pair]:
    (a, b), (c, d) = map(to.pair, node.inputs)
    real = to.sum(to.product(a, c, node), to.product(b, d, node), node, "Subtract")
    return [(real, to.sum(to.product(a, d, node), to.product(b, c, node), node))]


def _divided(to: _Pairs, node: Node) -> Sequence[Pair] | None:
    (a, b), (c, d) = map(to.pair, node.inputs)
    if d:
        return None
    return [(to.new("Divide", [a, c], node), to.new("Divide", [b, c], node) if b else "")]


def _negative(to: _Pairs, node: Node) -> Sequence[Pair]:
    a, b = to.pair(node.inputs[0])
    return [(to.new("Negative", [a], node), to.new("Negative", [b], node) if b else "")]


def _conjugate(to: _Pairs, node: Node) -> Sequence[Pair]:
    a, b = to.pair(node.inputs[0])
    return [(a, to.new("Negative", [b], node) if b else "")]


def _size(to: _Pairs, node: Node) -> Sequence[Pair]:
    a, b = to.pair(node.inputs[0])
    if not b:
        return [(to.new("Abs", [a], node), "")]
    squares = [to.new("Square", [part], node) for part in (a, b)]
    return [(to.new("Sqrt", [to.new("Add", squares, node)], node, False), "")]


def _exp(to: _Pairs, node: Node) -> Sequence[Pair]:
    a, b = to.pair(node.inputs[0])
    size = to.new("Exp", [a], node)
    if not b:
        return [(size, "")]
    parts = (to.new(wave, [b], node) for wave in ("Cos", "Sin"))
    real, imag = (to.new("Multiply", [size, part], node) for part in parts)
    return [(real, imag)]


def _cast(to: _Pairs, node: Node) -> Sequence[Pair]:
    real = to.pair(node.inputs[0])[0]
    if to.to.values[real].dtype != "float32" and node.output.dtype == "complex64":
        real = to.new("AsType", [real], node, mx.float32)
    elif node.output.dtype not in {"complex64", "float32"}:
        real = to.to.add("AsType", [real], node.output.shape, *node.args, like=node.output.name)
    return [(real, to.pair(node.inputs[0])[1] if node.output.dtype == "complex64" else "")]


def _real(to: _Pairs, node: Node) -> Sequence[Pair]:
    return [(to.pair(node.inputs[0])[0], "")]


def _imag(to: _Pairs, node: Node) -> Sequence[Pair]:
    a, b = to.pair(node.inputs[0])
    return [(b or to.zeros(a), "")]


def _view(to: _Pairs, node: Node) -> Sequence[Pair] | None:
    """Neighbours along the last axis are the parts of one number."""
    before, after = to.to.values[node.inputs[0]], node.output
    if {before.dtype, after.dtype} != {"float32", "complex64"} or not after.shape:
        return None
    if after.dtype == "complex64":
        name = to.real.get(before.name, before.name)
        rank = len(before.shape)
        start, step = (0,) * (rank - 1), (1,) * (rank - 1)
        cuts = (((*start, i), before.shape, (*step, 2)) for i in (0, 1))
        real, imag = (to.new("Slice", [name], node, *cut) for cut in cuts)
        return [(real, imag)]
    a, b = to.pair(before.name)
    column, both = (*before.shape, 1), (*before.shape, 2)
    parts = [
        to.to.add("Reshape", [part], column, column, like=after.name)
        for part in (a, b or to.zeros(a))
    ]
    paired = to.to.add("Concatenate", parts, both, len(before.shape), like=after.name)
    return [(to.new("Reshape", [paired], node, after.shape), "")]


RULES: dict[str, Rule] = {
    "Abs": _size,
    "Add": _added,
    "AsType": _cast,
    "Conjugate": _conjugate,
    "Divide": _divided,
    "Exp": _exp,
    "Imag": _imag,
    "Multiply": _multiplied,
    "Negative": _negative,
    "Real": _real,
    "Subtract": _added,
    "View": _view,
}
