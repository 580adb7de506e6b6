"""Recognize ``mx.pad(mode="edge")``, which MLX records as many slices that it writes back."""

from __future__ import annotations

from collections.abc import Iterable

import mlx.core as mx
import numpy as np

from ..evaluate import evaluate_node
from ..graph import Array, Graph, Node
from .dead_code import remove_dead_code

_MOVES = frozenset({"Slice", "SliceUpdate", "Broadcast", "Reshape", "ExpandDims"})


def raise_edge_pads(graph: Graph) -> Graph:
    """The last of the writes becomes one ``EdgePad`` of what the first of them wrote."""
    nodes: dict[str, Node] = {n.outputs[0].name: n for n in graph.nodes}
    for node in graph.nodes:
        if node.op == "SliceUpdate" and not _goes_on(graph, node):
            found = _edge_pad(graph, node)
            if found is not None:
                nodes[node.output.name] = found
    constants = dict(graph.constants) | {_ZERO: np.zeros((), np.float32)}
    return remove_dead_code(graph.with_nodes(nodes.values(), constants=constants))


_ZERO = "%edge"  # of no use to an EdgePad, which is laid out as a Pad is


def _goes_on(graph: Graph, node: Node) -> bool:
    """Whether what is written is written to again."""
    readers = graph.consumers[node.output.name]
    return any(r.op == "SliceUpdate" and r.inputs[0] == node.output.name for r in readers)


def _edge_pad(graph: Graph, last: Node) -> Node | None:
    chain = _chain(graph, last)
    first = chain[0]
    if first.op != "SliceUpdate" or first.inputs[0] not in graph.constants or len(chain) < 3:
        return None
    source, shape = first.inputs[1], last.output.shape
    low = first["start"]
    high = tuple(n - b for n, b in zip(shape, first["stop"], strict=True))
    count = int(np.prod(graph.shape(source)))
    numbers = np.arange(1, count + 1, dtype=np.int32).reshape(graph.shape(source))
    moved = _moved(graph, chain, {source: numbers})
    widths = list(zip(low, high, strict=True))
    if moved is None or not np.array_equal(moved, np.pad(numbers, widths, "edge")):
        return None
    axes = tuple(range(len(shape)))
    return Node("EdgePad", (source, _ZERO), last.outputs, (axes, low, high))


def _chain(graph: Graph, last: Node) -> list[Node]:
    """The moves that lead from the first write to the last, in order."""
    found: dict[str, Node] = {}
    todo = [last]
    while todo:
        node = todo.pop()
        if node.outputs[0].name in found or node.op not in _MOVES:
            continue
        found[node.outputs[0].name] = node
        starts = node.op == "SliceUpdate" and node.inputs[0] in graph.constants
        names: Iterable[str] = () if starts else node.inputs
        todo += [graph.producer[name] for name in names if name in graph.producer]
    return [n for n in graph.nodes if n.outputs[0].name in found]


def _moved(graph: Graph, chain: list[Node], known: dict[str, Array]) -> Array | None:
    """What the chain makes of numbered elements; of a constant, zeros."""
    for node in chain:
        inputs = []
        for name in node.inputs:
            if name not in known and name not in graph.constants:
                return None
            inputs.append(known.get(name, np.zeros(graph.shape(name), np.int32)))
        [result] = evaluate_node(node, *map(mx.array, inputs))
        known[node.output.name] = np.array(result)
    return known[chain[-1].output.name]
