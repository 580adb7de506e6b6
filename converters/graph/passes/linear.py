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
        bias = _bias(graph, node)
        if node.op == "AddMM" and bias is None:
            continue
        weight = _weight(graph, node.inputs[1], constants)
        if weight is not None:
            inputs = (node.inputs[0], weight, *([bias] if bias else []))
            nodes[node.output.name] = Node("Linear", inputs, node.outputs)
    return _unflatten(graph.with_nodes(nodes.values(), constants=constants))


def _weight(graph: Graph, name: str, constants: dict[str, Array]) -> str | None:
    """The name of the (out, in) matrix whose transpose ``name`` is, made if need be."""
    maker = graph.producer.get(name)
    if maker is not None and maker.op == "Transpose" and maker["axes"] == (1, 0):
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
    """Linear(Reshape(x)) that only flattens x's leading axes becomes Reshape(Linear(x))."""
    nodes: list[Node] = []
    for node in graph.nodes:
        flat = graph.producer.get(node.inputs[0]) if node.op == "Linear" else None
        before = (
            graph.shape(flat.inputs[0]) if flat is not None and flat.op == "Reshape" else ()
        )
        if flat is None or not before or before[-1] != flat.output.shape[-1]:
            nodes.append(node)
            continue
        out = node.output
        wide = replace(out, name=f"{out.name}.wide", shape=(*before[:-1], out.shape[-1]))
        inputs = (flat.inputs[0], *node.inputs[1:])
        nodes.append(replace(node, inputs=inputs, outputs=(wide,)))
        nodes.append(Node("Reshape", (wide.name,), (out,), (out.shape,)))
    return graph.with_nodes(nodes)
