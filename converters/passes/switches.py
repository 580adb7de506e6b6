"""Choices that depend on the chip: made on request, never by themselves.

Which form of attention or of GELU is fastest differs between Neural Engines and GPUs, and
only a measurement on the device tells. Each function here trades one form for another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..graph import Graph, Node, Value


def tanh_gelu(graph: Graph) -> Graph:
    """The exact GELU becomes its tanh approximation, up to 5e-4 off."""
    return graph.with_nodes(
        replace(n, op="GeluTanh") if n.op == "Gelu" else n for n in graph.nodes
    )


@dataclass(frozen=True)
class _Attention:
    """``second(softmax(first))``, where ``probabilities`` is the softmax."""

    first: Node
    probabilities: Node
    second: Node


def _attentions(graph: Graph) -> list[_Attention]:
    """Every product, softmax, product in which nothing else reads what is between."""
    found = []
    for second in graph.nodes:
        if second.op != "Matmul":
            continue
        for name in second.inputs:
            softmax = graph.producer.get(name)
            if softmax is None or softmax.op != "Softmax" or graph.uses[name] > 1:
                continue
            first = graph.producer.get(softmax.inputs[0])
            if first is None or first.op != "Matmul" or graph.uses[first.output.name] > 1:
                continue
            found.append(_Attention(first, softmax, second))
    return found


def fuse_attention(graph: Graph) -> Graph:
    """Each attention becomes one ``Attention(q, k, v)``: Core ML's fused op, iOS 18 and later.

    In MLX's layout. The op divides by the root of the head's width itself, so q, whose scale
    is in its weights by now, is multiplied by it first. A causal or other mask stays outside:
    such attention is left as it is.
    """
    constants = dict(graph.constants)
    replaced: dict[str, list[Node]] = {}
    for attention in _attentions(graph):
        q, turned = attention.first.inputs
        p, v = attention.second.inputs
        rank = len(graph.shape(q))
        if p != attention.probabilities.output.name or rank < 3:
            continue
        out = attention.second.output
        axes = (*range(rank - 2), rank - 1, rank - 2)
        scaled = Value(f"{out.name}.q", graph.shape(q))
        keys = Value(f"{out.name}.k", tuple(graph.shape(turned)[axis] for axis in axes))
        root = f"{out.name}.width"
        constants[root] = np.array(math.sqrt(graph.shape(q)[-1]), np.float32)
        replaced[out.name] = [
            Node("Multiply", (q, root), (scaled,)),
            Node("Transpose", (turned,), (keys,), (axes,)),
            Node("Attention", (scaled.name, keys.name, v), (out,)),
        ]
    nodes = [m for n in graph.nodes for m in replaced.get(n.outputs[0].name, [n])]
    return graph.with_nodes(nodes, constants=constants)


def split_heads(graph: Graph) -> Graph:
    """Attention over heads side by side becomes one small attention a head, concatenated.

    On a physical graph. What Apple's "Deploying Transformers on the Apple Neural Engine" does:
    smaller intermediate arrays that stay in the engine's cache.
    """
    nodes: list[Node] = []
    gone: set[str] = set()
    ends: dict[str, _Attention] = {}
    for attention in _attentions(graph):
        shape = attention.first.output.shape
        if len(shape) == 4 and shape[1] > 1:
            ends[attention.second.output.name] = attention
            gone |= {attention.first.output.name, attention.probabilities.output.name}
    for node in graph.nodes:
        name = node.outputs[0].name
        if name in ends:
            nodes += _per_head(graph, ends[name])
        elif name not in gone:
            nodes.append(node)
    return graph.with_nodes(nodes)


def _per_head(graph: Graph, attention: _Attention) -> list[Node]:
    first, softmax, second = attention.first, attention.probabilities, attention.second
    heads = first.output.shape[1]
    nodes: list[Node] = []

    def parts(name: str) -> list[str]:
        shape = (*graph.shape(name)[:1], 1, *graph.shape(name)[2:])
        values = tuple(Value(f"{name}.{second.output.name}.{h}", shape) for h in range(heads))
        nodes.append(Node("Split", (name,), values, (tuple(range(1, heads)), 1)))
        return [v.name for v in values]

    def one(like: Node, inputs: tuple[str, ...], head: int) -> str:
        shape = (like.output.shape[0], 1, *like.output.shape[2:])
        value = Value(f"{like.output.name}.{head}", shape)
        nodes.append(Node(like.op, inputs, (value,), like.args))
        return value.name

    left, right = (parts(name) for name in first.inputs)
    other = next(i for i in second.inputs if i != softmax.output.name)
    values = parts(other)
    results = []
    for h in range(heads):
        weights = one(softmax, (one(first, (left[h], right[h]), h),), h)
        inputs = tuple(
            weights if i == softmax.output.name else values[h] for i in second.inputs
        )
        results.append(one(second, inputs, h))
    nodes.append(Node("Concatenate", tuple(results), (second.output,), (1,)))
    return nodes


Switch = Callable[[Graph], Graph]


@dataclass(frozen=True)
class Form:
    """A choice for one kind of operation: what to do before and after the layout."""

    before: tuple[Switch, ...] = ()
    after: tuple[Switch, ...] = ()
    least: str = "iOS16"  # the first target that has it


ATTENTION = {
    "matmul": Form(),
    "per-head": Form(after=(split_heads,)),
    "fused": Form(before=(fuse_attention,), least="iOS18"),
}
GELU = {"exact": Form(), "tanh": Form(before=(tanh_gelu,))}
