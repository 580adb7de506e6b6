"""Run a graph with MLX: to fold constants, to measure ranges, to check that a pass is honest.

A result of the wrong shape (a Reshape to -1, say) is the caller's to know: the node has the
shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import mlx.core as mx
import numpy as np

from .graph import Array, Graph, Node, Value
from .ops import OPS


def can_evaluate(node: Node) -> bool:
    return node.op in OPS


def evaluate_node(node: Node, *inputs: mx.array) -> list[mx.array]:
    """The node's outputs for these inputs."""
    op = OPS[node.op]
    assert op.evaluate is not None
    shaped = (node.output,) if op.by_output else ()
    result = op.evaluate(*inputs, *node.args, *shaped)
    return list(result) if isinstance(result, list | tuple) else [result]


def evaluate(
    graph: Graph, *inputs: mx.array | Array, keep: Iterable[str] = ()
) -> dict[str, mx.array]:
    """The outputs of a graph still in MLX's layout, and the values named in ``keep``."""
    wanted = {*graph.outputs, *keep}
    found = {name: mx.array(v) for name, v in graph.constants.items() if name in wanted}
    for value, result in _walk(graph, inputs):
        if value.name in wanted:
            found[value.name] = result
    return found


def peaks(graph: Graph, *inputs: mx.array | Array) -> dict[str, float]:
    """The largest absolute value of every floating value, of one run."""
    found: dict[str, mx.array] = {}
    for value, result in _walk(graph, inputs):
        if value not in graph.inputs and mx.issubdtype(result.dtype, mx.floating):
            found[value.name] = mx.abs(result).max()
            mx.eval(found[value.name])  # all at once would hold all values at once
    return {name: float(np.array(peak)) for name, peak in found.items()}


def _walk(graph: Graph, inputs: Iterable[mx.array | Array]) -> Iterator[tuple[Value, mx.array]]:
    """Every value with what it is, inputs first; none is held longer than it is read.

    Nor is a constant: a copy of all weights would be as large as the model.
    """
    env = {v.name: mx.array(x) for v, x in zip(graph.inputs, inputs, strict=True)}
    yield from zip(graph.inputs, env.values(), strict=True)
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    for i, node in enumerate(graph.nodes):
        given = (
            env[name] if name in env else mx.array(graph.constants[name])
            for name in node.inputs
        )
        results = evaluate_node(node, *given)
        yield from zip(node.outputs, results, strict=True)
        env |= {v.name: r for v, r in zip(node.outputs, results, strict=True)}
        for name in node.inputs:
            if last[name] == i:
                env.pop(name, None)


def fold(node: Node, constants: Mapping[str, Array]) -> dict[str, Array]:
    """A node of constants only, as constants."""
    with mx.stream(mx.cpu):  # the only place where MLX has linear algebra
        results = evaluate_node(node, *(mx.array(constants[name]) for name in node.inputs))
        return {
            v.name: np.array(r).astype(v.dtype, copy=False)
            for v, r in zip(node.outputs, results, strict=True)
        }
