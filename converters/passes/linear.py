from __future__ import annotations

from dataclasses import replace

from ..graph import Array, Graph, Node


def raise_linear(graph: Graph) -> Graph:
    """A product with a constant matrix becomes ``Linear(x, weight[, bias])``.

    ``AddMM(Reshape(x), Transpose(weight), bias)`` and ``Matmul(x, Transpose(weight))`` keep
    the weight's path as its name; so does ``Matmul(x, weight)``, whose weight is laid out as
    (out, in) under the same name if nothing else reads it. The flattening around MLX's
    ``addmm`` goes: Linear takes any number of leading axes.
    """
    constants = dict(graph.constants)
    nodes = {n.outputs[0].name: n for n in graph.nodes}
    for node in graph.nodes:
        if node.op not in {"AddMM", "Matmul"} or node.args not in {(), (1.0, 1.0)}:
            continue
        weight = _weight(graph, node.inputs[1], constants)
        if weight is not None:
            bias = _bias(graph, node)
            if node.op == "Matmul" or bias is not None:
                inputs = (node.inputs[0], weight, *([bias] if bias else []))
                nodes[node.output.name] = Node("Linear", inputs, node.outputs)
    return _unflatten(graph.with_nodes(nodes.values(), constants=constants))


def _weight(graph: Graph, name: str, constants: dict[str, Array]) -> str | None:
    """The name of the (out, in) matrix whose transpose ``name`` is, made if need be."""
    maker = graph.producer.get(name)
    if maker is not None and maker.op == "Transpose" and maker.args[0] == (1, 0):
        return maker.inputs[0] if maker.inputs[0] in constants else None
    if maker is None and name in constants and constants[name].ndim == 2:
        turned = name if graph.uses[name] == 1 else f"{name}.T"
        constants[turned] = graph.constants[name].T
        return turned
    return None


def _bias(graph: Graph, node: Node) -> str | None:
    if node.op != "AddMM":
        return None
    name = node.inputs[2]
    maker = graph.producer.get(name)
    source = maker.inputs[0] if maker is not None and maker.op == "Broadcast" else name
    is_vector = source in graph.constants and graph.constants[source].ndim == 1
    return source if is_vector else None


def _unflatten(graph: Graph) -> Graph:
    """Reshape(Linear(Reshape(x))) with x's leading axes becomes Linear(x)."""
    nodes = {n.outputs[0].name: n for n in graph.nodes}
    for node in graph.nodes:
        linear = graph.producer.get(node.inputs[0]) if node.op == "Reshape" else None
        if linear is None or linear.op != "Linear" or graph.uses[linear.output.name] > 1:
            continue
        flat = graph.producer.get(linear.inputs[0])
        if flat is None or flat.op != "Reshape":
            continue
        before, after = graph.shape(flat.inputs[0]), node.output.shape
        if before[:-1] == after[:-1] and before[-1] == flat.output.shape[-1]:
            nodes[node.output.name] = replace(
                linear, inputs=(flat.inputs[0], *linear.inputs[1:]), outputs=node.outputs
            )
    return graph.with_nodes(nodes.values())
