from __future__ import annotations

import math
from dataclasses import replace

from ..graph import Graph, Node, Shape

_SUM, _MEAN = 2, 6


def raise_means(graph: Graph) -> Graph:
    """``Multiply(Reduce(sum), 1/n)`` becomes ``Reduce(mean)``, kind 6."""
    nodes = {n.outputs[0].name: n for n in graph.nodes}
    for node in graph.nodes:
        if node.op != "Multiply":
            continue
        for name, other in (node.inputs, node.inputs[::-1]):
            total, factor = graph.producer.get(name), graph.constants.get(other)
            if total is None or total.op != "Reduce" or total.args[0] != _SUM:
                continue
            if factor is None or factor.size != 1:
                continue
            shape = graph.shape(total.inputs[0])
            count = math.prod(shape[axis] for axis in total.args[1])
            if math.isclose(factor.item() * count, 1, rel_tol=1e-5):
                nodes[node.output.name] = replace(
                    total, outputs=node.outputs, args=(_MEAN, *total.args[1:])
                )
    return graph.with_nodes(nodes.values())


def norm_in_place(graph: Graph) -> Graph:
    """``Reshape(LayerNorm(Reshape(x)))`` back to x's shape becomes one LayerNorm of x's axes.

    This is what a group norm with one group is. The statistics do not depend on the order
    of the normalized axes, so the layout stays free.
    """
    nodes = {n.outputs[0].name: n for n in graph.nodes}
    for node in graph.nodes:
        norm = graph.producer.get(node.inputs[0]) if node.op == "Reshape" else None
        if norm is None or norm.op != "LayerNorm" or graph.uses[norm.output.name] > 1:
            continue
        flat = graph.producer.get(norm.inputs[0])
        if flat is None or flat.op != "Reshape" or len(norm.inputs) > 1:
            continue
        before, middle = graph.shape(flat.inputs[0]), flat.output.shape
        axes = _merged(before, middle)
        if node.output.shape == before and axes and norm.args[0] == (len(middle) - 1,):
            nodes[node.output.name] = Node(
                "LayerNorm", flat.inputs, node.outputs, (axes, norm.args[1])
            )
    return graph.with_nodes(nodes.values())


def _merged(before: Shape, after: Shape) -> tuple[int, ...]:
    """The axes that a reshape merges into the last one while it keeps the others."""
    keep = len(after) - 1
    if before[:keep] == after[:-1] and math.prod(before[keep:]) == after[-1]:
        return tuple(range(keep, len(before)))
    return ()
