from __future__ import annotations

from ..evaluate import can_evaluate, fold
from ..graph import Array, Graph, Node

# A repeated constant costs bytes in the package; anything larger is kept as an operation.
_MAX_BROADCAST = 2**16


def fold_constants(graph: Graph) -> Graph:
    """Compute now what depends on constants only, with MLX."""
    constants: dict[str, Array] = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph.nodes:
        foldable = all(name in constants for name in node.inputs) and can_evaluate(node)
        if foldable and not _inflates(node, constants):
            constants |= fold(node, constants)
        else:
            nodes.append(node)
    return graph.with_nodes(nodes, constants=constants)


def _inflates(node: Node, constants: dict[str, Array]) -> bool:
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
