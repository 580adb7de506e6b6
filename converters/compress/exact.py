"""What half precision cannot tell apart whatever its range: positions, angles, small values.

Half precision has eleven bits: positions of a map of 64 lie a 32nd apart in it, angles of 4,000
two apart, and 1e-8 is zero. Values that depend on such differences are computed in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..graph.graph import Graph, Node
from ..graph.ops import magnifies, op, scale_of

SMALLEST = 2.0**-14  # of a value with all of half precision's bits
SMALL_PEAK = 2.0**-9  # a value whose peak is below has elements that lack some
SMALL_NORM = 2.0**-6  # of what is standardized: its variance is the square, and has an epsilon
_PASSED = frozenset({"arithmetic", "move", "reduction", "activation"})


def exact_values(graph: Graph, ranges: Mapping[str, float]) -> set[str]:
    """The values that are to stay float32; ``ranges`` are the largest of each, as stored."""
    return _positions(graph, ranges) | _guarded(graph) | _small(graph, ranges)


def _positions(graph: Graph, ranges: Mapping[str, float]) -> set[str]:
    """Indices made of floating values, what is magnified, and what leads to them.

    Back to the layer that made it, that layer included; and what is computed of such values
    alone, as the weights of a bilinear sample are.
    """
    ends = [n for n in graph.nodes if _makes_index(graph, n) or _magnified(graph, n, ranges)]
    found = {v.name for node in ends for v in node.outputs}
    todo = [name for node in ends for name in node.inputs]
    todo += [node.inputs[i] for node in graph.nodes for i in op(node.op).exact]
    while todo:
        name = todo.pop()
        maker = graph.producer.get(name)
        if name in found or not graph.is_float(name):
            continue
        found |= {name} if maker is None else {v.name for v in maker.outputs}
        if maker is not None and op(maker.op).kind in _PASSED:
            todo += maker.inputs
    for node in graph.nodes:
        if op(node.op).kind in {"arithmetic", "move"} and _all_in(graph, node.inputs, found):
            found |= {v.name for v in node.outputs}
    return found


def _magnified(graph: Graph, node: Node, ranges: Mapping[str, float]) -> bool:
    name = node.outputs[0].name
    return graph.is_float(name) and magnifies(node, ranges.get(name, 0.0))


def _makes_index(graph: Graph, node: Node) -> bool:
    is_cast = node.op == "AsType" and graph.is_float(node.inputs[0])
    return is_cast and "int" in node.output.dtype


def _all_in(graph: Graph, names: Iterable[str], found: set[str]) -> bool:
    moving = [i for i in names if i not in graph.constants and graph.is_float(i)]
    return bool(moving) and found.issuperset(moving)


def _guarded(graph: Graph) -> set[str]:
    """Sums and limits with a value that half precision loses, where it guards a function.

    ``log(x + 1e-8)`` and ``x / max(norm, 1e-12)`` are finite because of it.
    """
    found: set[str] = set()
    for node in graph.nodes:
        if op(node.op).kind == "arithmetic" and any(_is_small(graph, i) for i in node.inputs):
            chain, is_steep = _until_steep(graph, node)
            gates = {i for i in node.inputs if _is_gate(graph, i)}
            found |= chain | gates if is_steep else set()
    return found


def _small(graph: Graph, ranges: Mapping[str, float]) -> set[str]:
    """Norms of small values, functions that are steep at zero of such, and what leads to them.

    ``rsqrt(mean(x * x))`` of an ``x`` near 1e-4 has squares that half precision has not.
    """
    found: set[str] = set()
    todo: list[str] = []
    for node in graph.nodes:
        limit = (
            SMALL_NORM if scale_of(node) == "norm" else SMALL_PEAK if op(node.op).steep else 0
        )
        small = [i for i in node.inputs if 0 < ranges.get(i, 0.0) < limit]
        found |= {v.name for v in node.outputs} if small else set()
        todo += small
    while todo:
        name = todo.pop()
        maker = graph.producer.get(name)
        if maker is None or name in found or not 0 < ranges.get(name, 0.0) < SMALL_PEAK:
            continue
        found |= {v.name for v in maker.outputs}
        todo += maker.inputs if op(maker.op).kind in _PASSED else ()
    return found


def _is_gate(graph: Graph, name: str) -> bool:
    maker = graph.producer.get(name)
    return maker is not None and op(maker.op).is_gate


def _is_small(graph: Graph, name: str) -> bool:
    value = graph.constants.get(name)
    if value is None or not value.size or value.dtype.kind != "f":
        return False
    return 0 < float(np.abs(value).max()) < SMALLEST


def _until_steep(graph: Graph, start: Node) -> tuple[set[str], bool]:
    """What is computed from ``start`` up to functions that are steep at zero, if there are."""
    found, todo, is_steep = set(), [start], False
    while todo:
        node = todo.pop()
        found |= {v.name for v in node.outputs}
        for reader in (r for v in node.outputs for r in graph.consumers[v.name]):
            steep = op(reader.op).steep
            is_steep |= bool(steep)
            if steep == "through" or op(reader.op).limits:
                todo.append(reader)
            elif steep == "end" or op(node.op).steep:  # the product with a root
                found |= {v.name for v in reader.outputs}
    return found, is_steep
