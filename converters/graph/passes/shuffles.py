"""Pixels moved into channels and channels into pixels: Core ML has one op for each way.

They are spelled as a reshape, a transpose and a reshape, in either order of an image's axes.
What such a chain does to the numbers of its elements tells which op it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..graph import Graph, Node, Shape, Value
from ..shuffling import ENLARGING, SHUFFLES
from .dead_code import remove_dead_code

_MOVES = frozenset({"Reshape", "Transpose"})
_LAST, _FIRST = (0, 1, 2, 3), (0, 2, 3, 1)  # of an image's axes, to channels-last
_LONGEST = 6  # moves that one chain has


def raise_shuffles(graph: Graph) -> Graph:
    """A chain of moves that does what a pixel shuffle does is one, or the way back."""
    replaced: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op in _MOVES and len(node.output.shape) == 4:
            for chain in _chains(graph, node):
                if found := _shuffled(graph, chain):
                    replaced[node.output.name] = found
    nodes = [m for n in graph.nodes for m in replaced.get(n.outputs[0].name, [n])]
    return remove_dead_code(graph.with_nodes(nodes)) if replaced else graph


def _chains(graph: Graph, node: Node) -> Iterator[list[Node]]:
    """Moves that end with ``node`` and start at a value of four axes, the shortest first."""
    chain: list[Node] = []
    maker: Node | None = node
    while maker is not None and maker.op in _MOVES and len(chain) < _LONGEST:
        chain = [maker, *chain]
        if len(graph.shape(maker.inputs[0])) == 4 and len({n.op for n in chain}) == 2:
            yield chain
        maker = graph.producer.get(maker.inputs[0])


def _shuffled(graph: Graph, chain: list[Node]) -> list[Node]:
    x, end = graph.values[chain[0].inputs[0]], chain[-1].output
    for order in (_LAST, _FIRST):
        before, after = (tuple(shape[a] for a in order) for shape in (x.shape, end.shape))
        for name in SHUFFLES:
            small, large = (before, after) if name in ENLARGING else (after, before)
            r = large[1] // small[1]
            fits = r > 1 and large[1:3] == (small[1] * r, small[2] * r)
            if fits and small[3] == large[3] * r * r and _does(chain, x.shape, name, r, order):
                return _nodes(x, end, name, r, order, after)
    return []


def _does(chain: list[Node], shape: Shape, name: str, r: int, order: tuple[int, ...]) -> bool:
    """Whether the chain moves every element to where the operation does."""
    given = np.arange(math.prod(shape)).reshape(shape)
    moved = given
    for node in chain:
        if node.op == "Reshape":
            moved = moved.reshape(node.output.shape)
        else:
            moved = moved.transpose(node["axes"])
    wanted = SHUFFLES[name](given.transpose(order), r)
    return bool((moved.transpose(order) == wanted).all())


def _nodes(
    x: Value, end: Value, name: str, r: int, order: tuple[int, ...], after: Shape
) -> list[Node]:
    if order != _FIRST:
        return [Node(name, (x.name,), (end,), (r,))]
    last = Value(f"{end.name}.in", tuple(x.shape[a] for a in order), x.dtype)
    made = Value(f"{end.name}.out", after, x.dtype)
    return [
        Node("Transpose", (x.name,), (last,), (order,)),
        Node(name, (last.name,), (made,), (r,)),
        Node("Transpose", (made.name,), (end,), ((0, 3, 1, 2),)),
    ]
