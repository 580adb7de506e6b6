"""What becomes of a value further on, before it is decided how it lies in memory."""

from __future__ import annotations

from collections.abc import Mapping

from ..graph import Graph
from ..ops import op
from .orders import Order

# The layout's rules for what a value may go through in whatever order it lies.
_THROUGH = frozenset({"split", "concatenate", "slice", "unary", "layer_norm", "affine"})


def before_linear(graph: Graph) -> set[str]:
    """The values that meet a linear layer before they meet a product, a reshape or a sum."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        through = node.op not in {"Matmul", "Reshape", "Reduce"}
        reaches = through and any(v.name in found for v in node.outputs)
        if node.op == "Linear" or reaches:
            found.update(node.inputs)
    return found


def meets(graph: Graph, name: str, orders: Mapping[str, Order], wanted: Order) -> bool:
    """Whether all that reads a value, or what is cut and joined of it, reads one lying so."""
    todo, found = [name], False
    while todo:
        for reader in graph.consumers[todo.pop()]:
            if op(reader.op).layout in _THROUGH:
                todo += [v.name for v in reader.outputs]
            elif any(orders.get(i) == wanted for i in reader.inputs):
                found = True
            else:
                return False
    return found
