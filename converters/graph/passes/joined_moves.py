"""Reshapes and transposes one after the other, with as few transposes as they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..graph import Graph, Node, Shape, Value
from .dead_code import remove_dead_code
from .permutations import blocks, steps

_MOVES = frozenset({"Reshape", "Transpose"})


def join_moves(graph: Graph) -> Graph:
    """A row of moves is one permutation of the pieces that its reshapes cut axes into.

    Of a physical graph: a partition into windows is a transpose out of channels-first, one of
    windows and one into tokens, which together are one. What others read on the way stays.
    """
    changed: dict[str, list[Node]] = {}
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node.op not in _MOVES or _goes_on(graph, node):
            continue
        found = _joined(graph, _row(graph, node))
        if found is not None:
            root, changed[node.output.name] = found
            if not changed[node.output.name]:
                names[node.output.name] = root
    if not changed:
        return graph
    nodes = (m for n in graph.nodes for m in changed.get(n.outputs[0].name, [n]))
    return remove_dead_code(graph.with_nodes(nodes).rename(names))


def _goes_on(graph: Graph, node: Node) -> bool:
    """Whether another move alone reads what this one gives."""
    readers = graph.consumers[node.output.name]
    return graph.uses[node.output.name] == 1 and bool(readers) and readers[0].op in _MOVES


def _row(graph: Graph, last: Node) -> list[Node]:
    """The moves that lead to the last one, in order."""
    row = [last]
    while (maker := graph.producer.get(row[0].inputs[0])) is not None and maker.op in _MOVES:
        row.insert(0, maker)
    return row


def _joined(graph: Graph, row: list[Node]) -> tuple[str, list[Node]] | None:
    """Where it starts, and the moves in place of the longest end of a row that gains by it."""
    for start in range(len(row) - 1):
        root = row[start].inputs[0]
        permutation = _permutation(graph.shape(root), row[start:])
        if permutation is None:
            continue
        pieces, order = permutation
        groups, moved = blocks(pieces, order)
        lying = [math.prod(pieces[i] for i in group) for group in groups]
        if len(steps(moved)) < _spared(graph, row[start:]):
            return root, _moves(root, graph.shape(root), lying, moved, row[-1].output)
    return None


def _spared(graph: Graph, row: Sequence[Node]) -> int:
    """How many of its transposes nothing else reads."""
    count = 0
    for i, node in enumerate(reversed(row)):
        if i and graph.uses[node.output.name] > 1:
            break
        count += node.op == "Transpose"
    return count


def _permutation(shape: Shape, row: Sequence[Node]) -> tuple[Shape, tuple[int, ...]] | None:
    """The pieces that the axes of ``shape`` are cut into, and the order that they end in.

    None where a reshape cuts an axis askew of how it was put together.
    """
    pieces = _Pieces(shape)
    for node in row:
        axes = pieces.axes(shape)
        if axes is None:
            return None
        if node.op == "Transpose":
            pieces.lying = [piece for axis in node["axes"] for piece in axes[axis]]
        shape = node.output.shape
    if pieces.axes(shape) is None:
        return None
    place = {piece: i for i, piece in enumerate(pieces.source)}
    sizes = tuple(pieces.size[piece] for piece in pieces.source)
    return sizes, tuple(place[piece] for piece in pieces.lying)


class _Pieces:
    """Pieces of axes, by number: as they lay at first, and as they lie now."""

    def __init__(self, shape: Shape) -> None:
        self.size = dict(enumerate(n for n in shape if n != 1))
        self.source, self.lying = list(self.size), list(self.size)

    def axes(self, shape: Shape) -> list[list[int]] | None:
        """The pieces that each axis of ``shape`` is made of, cut where need be."""
        waiting, found = list(self.lying), []
        for n in shape:
            axis: list[int] = []
            while n > 1:
                piece = waiting.pop(0)
                if math.gcd(self.size[piece], n) != min(self.size[piece], n):
                    return None
                if self.size[piece] > n:
                    waiting.insert(0, self._cut(piece, n))
                axis.append(piece)
                n //= self.size[piece]
            found.append(axis)
        return found

    def _cut(self, piece: int, size: int) -> int:
        """Leave the piece its first part, of this size; the number of the rest."""
        rest = len(self.size)
        self.size[rest], self.size[piece] = self.size[piece] // size, size
        for row in (self.source, self.lying):
            row.insert(row.index(piece) + 1, rest)
        return rest


def _moves(
    root: str, shape: Shape, lying: list[int], order: tuple[int, ...], last: Value
) -> list[Node]:
    """From a value of ``shape``, whose blocks are as long as ``lying`` says, to the last."""
    nodes: list[Node] = []

    def add(op: str, to: Shape, *args: object) -> None:
        before = nodes[-1].output.name if nodes else root
        value = replace(last, name=f"{last.name}_joined_{len(nodes)}", shape=to)
        nodes.append(Node(op, (before,), (value,), args))

    for sizes, moved in steps(order):
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        parts = [lying[end - n : end] for n, end in zip(sizes, ends, strict=True)]
        merged = tuple(map(math.prod, parts))
        if merged != shape:
            add("Reshape", merged, merged)
        shape = tuple(merged[i] for i in moved)
        add("Transpose", shape, moved)
        lying = [n for i in moved for n in parts[i]]
    if shape != last.shape:
        add("Reshape", last.shape, last.shape)
    return [*nodes[:-1], replace(nodes[-1], outputs=(last,))] if nodes else []
