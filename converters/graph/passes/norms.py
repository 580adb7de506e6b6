from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from ..graph import Graph, Node, Shape, Value


def raise_means(graph: Graph) -> Graph:
    """A sum over n elements, of axes or of a pool's windows, times 1/n or over n is a mean."""
    nodes = {n.outputs[0].name: n for n in graph.nodes}
    for node in graph.nodes:
        for total, share in _shares(graph, node):
            count = _summed(graph, total)
            if count and math.isclose(share * count, 1, rel_tol=1e-5):
                mean = total.with_args(kind="mean")
                nodes[node.output.name] = replace(mean, outputs=node.outputs)
    return graph.with_nodes(nodes.values())


def _shares(graph: Graph, node: Node) -> Iterator[tuple[Node, float]]:
    """What makes the value that a product or quotient with one number is of, and the share."""
    if node.op not in {"Multiply", "Divide"}:
        return
    pairs = [node.inputs, node.inputs[::-1]] if node.op == "Multiply" else [node.inputs]
    for name, other in pairs:
        total, factor = graph.producer.get(name), graph.constants.get(other)
        is_number = factor is not None and factor.size == 1 and factor.dtype.kind in "fiu"
        if total is not None and factor is not None and is_number and factor.item():
            number = float(factor.item())
            yield total, number if node.op == "Multiply" else 1 / number


def _summed(graph: Graph, total: Node) -> int:
    """How many elements are summed for each of the result; 0 if that is no sum."""
    is_sum = total.op in {"Reduce", "Pool"} and total["kind"] == "sum"
    if not is_sum or not graph.is_float(total.output.name):
        return 0
    if total.op == "Pool":
        return math.prod(total["kernel"])
    shape = graph.shape(total.inputs[0])
    return math.prod(shape[axis] for axis in total["axes"])


def norm_in_place(graph: Graph) -> Graph:
    """``LayerNorm(Reshape(x))`` becomes ``Reshape(LayerNorm(Reshape(x)))`` with axes of x.

    The statistics do not depend on the order of the normalized axes, so axes that a reshape
    merged only to be normalized together are normalized where they are, and the layout
    stays free. This is what group norms are made of; the outer reshapes cancel out.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        flat = graph.producer.get(node.inputs[0]) if node.op == "LayerNorm" else None
        found = None
        if flat is not None and flat.op == "Reshape" and len(node.inputs) == 1:
            before, after = graph.shape(flat.inputs[0]), flat.output.shape
            found = _refined(before, after, node["axes"])
        nodes += _apart(node, flat.inputs[0], *found) if flat and found else [node]
    return graph.with_nodes(nodes)


def _apart(norm: Node, x: str, shape: Shape, axes: tuple[int, ...]) -> list[Node]:
    out = norm.output
    cut = Value(f"{out.name}.cut", shape, out.dtype)
    wide = Value(f"{out.name}.wide", shape, out.dtype)
    return [
        Node("Reshape", (x,), (cut,), (shape,)),
        Node("LayerNorm", (cut.name,), (wide,), (axes, norm["eps"])),
        Node("Reshape", (wide.name,), (out,), (out.shape,)),
    ]


def _refined(
    before: Shape, after: Shape, axes: tuple[int, ...]
) -> tuple[Shape, tuple[int, ...]] | None:
    """The common refinement of two shapes and the place of ``axes`` of the second in it."""
    ends = {math.prod(before[:i]) for i in range(len(before) + 1)}
    cuts = sorted(ends | {math.prod(after[:i]) for i in range(len(after) + 1)})
    if any(b % a for a, b in pairwise(cuts)):
        return None
    shape = tuple(b // a for a, b in pairwise(cuts))
    shape = (1, *shape) if before[0] == 1 else shape
    starts = [math.prod(shape[:i]) for i in range(len(shape))]
    place: list[int] = []
    for axis in axes:
        low, high = math.prod(after[:axis]), math.prod(after[: axis + 1])
        place += [i for i, at in enumerate(starts) if low <= at < high and shape[i] != 1]
    return (shape, tuple(place)) if len(shape) <= 5 and len(place) > len(axes) else None
