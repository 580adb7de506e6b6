from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node


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
