from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping

import numpy as np

from ..evaluate import can_evaluate, fold
from ..graph import Array, Graph, Node
from .dead_code import remove_dead_code

# A repeated constant costs bytes in the package; anything larger is kept as an operation.
_MAX_BROADCAST = 2**16


def fold_constants(graph: Graph) -> Graph:
    """Compute now what depends on constants only, with MLX, and what has no elements.

    A constant repeated many times stays an operation where something else reads it.
    """
    constants: dict[str, Array] = dict(graph.constants)
    repeated: dict[str, Array] = {}
    known = ChainMap(constants, repeated)
    nodes: list[Node] = []
    for node in graph.nodes:
        if all(0 in v.shape for v in node.outputs):
            constants |= {v.name: np.zeros(v.shape, v.dtype) for v in node.outputs}
        elif not (all(name in known for name in node.inputs) and can_evaluate(node)):
            nodes.append(node)
        elif _inflates(node, known):
            repeated[node.output.name] = np.broadcast_to(
                known[node.inputs[0]], node.output.shape
            )
            nodes.append(node)
        else:
            constants |= fold(node, known)
    return remove_dead_code(graph.with_nodes(nodes, constants=constants))


def _inflates(node: Node, constants: Mapping[str, Array]) -> bool:
    size = sum(constants[name].size for name in node.inputs)
    return (
        node.op == "Broadcast"
        and node.output.shape != ()
        and size < _size(node) > _MAX_BROADCAST
    )


def _size(node: Node) -> int:
    total = 1
    for n in node.output.shape:
        total *= n
    return total
