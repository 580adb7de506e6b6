"""Core ML has no value without an axis: one of one element stands for it."""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node, Value


def scalars_to_vectors(graph: Graph) -> Graph:
    """Every value of shape () gets the shape (1,), inputs and outputs as well."""
    if not any(v.shape == () for v in _made(graph)):
        return graph
    nodes: list[Node] = []
    for node in graph.nodes:
        outputs = tuple(map(_vector, node.outputs))
        if node.op == "Reduce" and node.output.shape == ():
            nodes += _reduced(graph, node)
        elif node.op in {"Reshape", "Broadcast"}:
            nodes.append(replace(node, outputs=outputs, args=(outputs[0].shape,)))
        else:
            nodes.append(replace(node, outputs=outputs))
    constants = {
        k: v.reshape(1) if k in graph.outputs and v.shape == () else v
        for k, v in graph.constants.items()
    }
    inputs = tuple(map(_vector, graph.inputs))
    return replace(graph, inputs=inputs, nodes=tuple(nodes), constants=constants)


def _made(graph: Graph) -> list[Value]:
    constants = [graph.values[o] for o in graph.outputs if o in graph.constants]
    return [*graph.inputs, *constants, *(v for n in graph.nodes for v in n.outputs)]


def _vector(value: Value) -> Value:
    return replace(value, shape=(1,)) if value.shape == () else value


def _reduced(graph: Graph, node: Node) -> list[Node]:
    """A sum of all axes keeps them; then they go."""
    rank = len(graph.shape(node.inputs[0])) or 1
    kept = replace(node.output, name=f"{node.output.name}.kept", shape=(1,) * rank)
    kind = node["kind"]
    axes = node["axes"] or (0,)
    return [
        replace(node, outputs=(kept,), args=(kind, axes, True)),
        Node("Reshape", (kept.name,), (replace(node.output, shape=(1,)),), ((1,),)),
    ]
