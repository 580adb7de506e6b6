"""One spelling for each thing, so that later passes look for one."""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node

RESHAPES = frozenset({"Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze"})
_LOGICAL = {"and": "LogicalAnd", "or": "LogicalOr", "xor": "LogicalXor"}
COPIES = frozenset({"Full", "StopGradient", "Contiguous", "Copy", "AsType"})


def canonicalize(graph: Graph) -> Graph:
    """Every change of shape is a Reshape; copies and steps that change nothing are gone.

    Nothing is concatenated with an empty array, which is how MLX rolls by zero.

    ``Squeeze(Reduce(x))`` that removes the reduced axes becomes a Reduce that drops them.
    """
    graph = graph.with_nodes(_without_empty(graph, _spell(n)) for n in graph.nodes)
    return _drop_axes(_drop_copies(graph))


def _spell(node: Node) -> Node:
    if node.op in RESHAPES:
        return replace(node, op="Reshape", args=(node.output.shape,))
    if node.op == "BitwiseBinary" and node.output.dtype == "bool":
        (kind,) = node.args
        return replace(node, op=_LOGICAL[kind], args=())
    if node.op == "BitwiseInvert" and node.output.dtype == "bool":
        return replace(node, op="LogicalNot", args=())
    if node.op == "Reduce" and len(node.args) == 2:
        return replace(node, args=(*node.args, True))  # MLX always keeps the axes
    return node


def _without_empty(graph: Graph, node: Node) -> Node:
    if node.op != "Concatenate":
        return node
    full = tuple(i for i in node.inputs if 0 not in graph.shape(i))
    return replace(node, inputs=full) if full else node


def _changes_nothing(graph: Graph, node: Node) -> bool:
    if not node.inputs or len(node.outputs) != 1:
        return False
    if len(node.inputs) != 1 and node.op != "Pad":
        return False
    before, after = graph.values[node.inputs[0]], node.output
    same = before.shape == after.shape
    if node.op == "Pad":
        return same
    if node.op == "Transpose":
        return node["axes"] == tuple(range(len(after.shape)))
    if node.op == "AsType":
        return before.dtype == after.dtype
    return same and (node.op in COPIES or node.op in {"Reshape", "Broadcast", "Concatenate"})


def _drop_copies(graph: Graph) -> Graph:
    gone = {n.output.name: n.inputs[0] for n in graph.nodes if _changes_nothing(graph, n)}
    return graph.with_nodes(n for n in graph.nodes if n.outputs[0].name not in gone).rename(
        gone
    )


def merge_moves(graph: Graph) -> Graph:
    """Reshape(Reshape(x)) is one Reshape, Transpose(Transpose(x)) one Transpose or none."""
    merged: dict[str, Node] = {}
    for node in graph.nodes:
        before = merged.get(node.inputs[0]) if node.inputs else None
        if before is not None and before.op == node.op == "Reshape":
            node = replace(node, inputs=before.inputs)
        elif before is not None and before.op == node.op == "Transpose":
            axes = tuple(before["axes"][i] for i in node["axes"])
            node = replace(node, inputs=before.inputs, args=(axes,))
        merged[node.outputs[0].name] = node
    return _drop_copies(graph.with_nodes(merged.values()))


def _drop_axes(graph: Graph) -> Graph:
    """Reshape(Reduce(x)) that only removes the reduced axes becomes part of the Reduce."""
    gone: dict[str, Node] = {}
    for node in graph.nodes:
        reduce = graph.producer.get(node.inputs[0]) if node.op == "Reshape" else None
        if reduce is None or reduce.op != "Reduce" or graph.uses[node.inputs[0]] > 1:
            continue
        kept = [n for i, n in enumerate(reduce.output.shape) if i not in reduce["axes"]]
        if tuple(kept) == node.output.shape:
            gone[reduce.output.name] = replace(
                reduce.with_args(keep=False), outputs=node.outputs
            )
            gone[node.output.name] = node
    nodes = []
    for node in graph.nodes:
        name = node.outputs[0].name
        if node.op == "Reduce" and name in gone:
            nodes.append(gone[name])
        elif name not in gone:
            nodes.append(node)
    return graph.with_nodes(nodes)
