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
from .affine import fold_affine
from .dead_code import remove_dead_code

_NOTHING = -1e4  # a score below it leaves nothing of a softmax


def tanh_gelu(graph: Graph) -> Graph:
    """The exact GELU becomes its tanh approximation, up to 5e-4 off."""
    return graph.with_nodes(
        replace(n, op="GeluTanh") if n.op == "Gelu" else n for n in graph.nodes
    )


@dataclass(frozen=True)
class _Attention:
    """``second(softmax(first))``, where ``probabilities`` is the softmax.

    ``mask`` names what is added to the scores, or where they count; "" if all do.
    """

    first: Node
    probabilities: Node
    second: Node
    mask: str = ""


def _attentions(graph: Graph) -> list[_Attention]:
    """Every product, mask, softmax, product in which nothing else reads what is between."""
    found = []
    for second in graph.nodes:
        if second.op != "Matmul":
            continue
        for name in second.inputs:
            softmax = _only_read(graph, name, {"Softmax"})
            if softmax is None:
                continue
            scores, mask = _masked(graph, softmax.inputs[0])
            if first := _only_read(graph, scores, {"Matmul"}):
                found.append(_Attention(first, softmax, second, mask))
    return found


def _only_read(graph: Graph, name: str, ops: set[str]) -> Node | None:
    """What makes ``name``, if it is one of ``ops`` and ``name`` is read once."""
    maker = graph.producer.get(name)
    return maker if maker and maker.op in ops and graph.uses[name] == 1 else None


def _masked(graph: Graph, name: str) -> tuple[str, str]:
    """The scores and their mask, of ``scores + mask`` or ``where(mask, scores, -inf)``.

    A mask of truths is known only if it is constant: a row that sees nothing would be an
    average in MLX, and not a number in Core ML.
    """
    node = _only_read(graph, name, {"Add", "Select"})
    if node is None:
        return name, ""
    if node.op == "Add":
        pairs = (node.inputs, node.inputs[::-1])
        scores, mask = next((p for p in pairs if _is_product(graph, p[0])), (name, ""))
    else:
        mask, scores, least = node.inputs
        seen, fill = graph.constants.get(mask), graph.constants.get(least)
        if seen is None or fill is None or fill.max() > _NOTHING or not seen.any(-1).all():
            return name, ""
    fits = scores != name and graph.shape(scores) == node.output.shape
    fits = fits and graph.shape(mask)[-1:] == node.output.shape[-1:]
    return (scores, mask) if fits else (name, "")


def _is_product(graph: Graph, name: str) -> bool:
    maker = graph.producer.get(name)
    return maker is not None and maker.op == "Matmul"


def fuse_attention(graph: Graph) -> Graph:
    """Each attention becomes ``Attention(q, k, v[, mask])``: Core ML's fused op, from iOS 18.

    In MLX's layout. The op divides by the root of the head's width itself, so q, whose scale
    is in its weights by now, is multiplied by it first: ``fold_affine`` puts that there too.
    """
    constants = dict(graph.constants)
    replaced: dict[str, list[Node]] = {}
    for attention in _attentions(graph):
        q, turned = attention.first.inputs
        p, v = attention.second.inputs
        rank = len(graph.shape(q))
        stacks = {graph.shape(name)[:-2] for name in (q, turned, v)}
        if p != attention.probabilities.output.name or rank < 3 or len(stacks) > 1:
            continue
        out = attention.second.output
        axes = (*range(rank - 2), rank - 1, rank - 2)
        scaled = Value(f"{out.name}.q", graph.shape(q))
        keys = Value(f"{out.name}.k", tuple(graph.shape(turned)[axis] for axis in axes))
        root = f"{out.name}.width"
        constants[root] = np.array(math.sqrt(graph.shape(q)[-1]), np.float32)
        mask = (attention.mask,) if attention.mask else ()
        replaced[out.name] = [
            Node("Multiply", (q, root), (scaled,)),
            Node("Transpose", (turned,), (keys,), (axes,)),
            Node("Attention", (scaled.name, keys.name, v, *mask), (out,)),
        ]
    nodes = [m for n in graph.nodes for m in replaced.get(n.outputs[0].name, [n])]
    return remove_dead_code(graph.with_nodes(nodes, constants=constants))


def split_heads(graph: Graph) -> Graph:
    """Attention over heads side by side becomes one small attention a head, concatenated.

    On a physical graph. What Apple's "Deploying Transformers on the Apple Neural Engine" does:
    smaller intermediate arrays that stay in the engine's cache. Masked attention stays whole.
    """
    nodes: list[Node] = []
    gone: set[str] = set()
    ends: dict[str, _Attention] = {}
    for attention in _attentions(graph):
        shape = attention.first.output.shape
        if len(shape) == 4 and shape[1] > 1 and not attention.mask:
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


ATTENTION = {
    "matmul": Form(),
    "per-head": Form(after=(split_heads,)),
    "fused": Form(before=(fuse_attention, fold_affine)),
}
GELU = {"exact": Form(), "tanh": Form(before=(tanh_gelu,))}
