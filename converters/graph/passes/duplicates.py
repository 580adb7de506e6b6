from __future__ import annotations

from dataclasses import replace

from ..graph import COMPUTED, Graph, Node


def merge_duplicates(graph: Graph) -> Graph:
    """Compute once what several outputs ask for: equal nodes on equal inputs are one node."""
    names: dict[str, str] = {}
    first: dict[tuple[object, ...], Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(names.get(i, i) for i in node.inputs))
        shapes = tuple((v.shape, v.dtype) for v in node.outputs)
        twin = first.setdefault((node.op, node.inputs, node.args, shapes), node)
        if twin is node:
            nodes.append(node)
        else:
            pairs = zip(node.outputs, twin.outputs, strict=True)
            names |= {copy.name: original.name for copy, original in pairs}
    return graph.with_nodes(nodes, outputs=tuple(names.get(o, o) for o in graph.outputs))


def merge_constants(graph: Graph) -> Graph:
    """One name for equal constants that are no parameters."""
    first: dict[tuple[object, ...], str] = {}
    names = {
        name: first.setdefault((a.dtype.str, a.shape, a.tobytes()), name)
        for name, a in graph.constants.items()
        if name.startswith(COMPUTED)
    }
    return graph.rename({name: kept for name, kept in names.items() if name != kept})
