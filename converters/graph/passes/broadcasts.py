from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..graph import Graph, Node
from ..ops import ELEMENTWISE


def drop_broadcasts(graph: Graph) -> Graph:
    """Let elementwise ops read a broadcast operand directly.

    ``Add(x, Broadcast(bias))`` becomes ``Add(x, bias)``, unless the broadcast is what gives
    the sum its shape.
    """
    source = {n.output.name: n.inputs[0] for n in graph.nodes if n.op == "Broadcast"}

    def direct(node: Node) -> Node:
        inputs = tuple(source.get(i, i) for i in node.inputs)
        shape = np.broadcast_shapes(*(graph.shape(i) for i in inputs))
        return replace(node, inputs=inputs) if shape == node.output.shape else node

    return graph.with_nodes(direct(n) if n.op in ELEMENTWISE else n for n in graph.nodes)
