"""What an error in a weight costs at the model's output, from one backward pass.

The loss is the divergence of the outputs from what they were. Its second-order term for one
layer is taken as in K-FAC: an error E in a weight costs sum_o g_o E_o H E_o^T / 2 over the
outputs o, with H the second moments of the layer's inputs and g_o the mean squared gradient
at its output, summed over the positions of a map (Grosse and Martens, "A Kronecker-factored
approximate Fisher matrix for convolution layers", 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from ..graph.evaluate import evaluate
from ..graph.graph import Array, Graph, Node, Value
from .calibrate import Calibration, layers
from .rounding import Statistics

_PROBE = ".probe"


def output_gradients(calibration: Calibration) -> dict[str, Array]:
    """For each layer by its weight's path, (outputs,): g above."""
    graph, probes = _probed(calibration.graph)
    rng = np.random.default_rng(0)
    sums: dict[str, Array] = {}
    count = 0
    for batch in calibration.batches:
        gradients = mx.grad(_loss)(probes, graph, batch, rng)
        mx.eval(gradients)
        for path, gradient in gradients.items():
            squares = np.square(np.array(gradient), dtype=np.float64)
            total = squares.reshape(-1, squares.shape[-1]).sum(axis=0)
            sums[path] = sums.get(path, 0) + total
        count += len(batch[0])
    return {path: total / count for path, total in sums.items()}


def _probed(graph: Graph) -> tuple[Graph, dict[str, mx.array]]:
    """The graph with a zero added to each layer's output, and the zeros."""
    names = {node.output.name: path for path, node in layers(graph)}
    nodes: list[Node] = []
    probes: dict[str, mx.array] = {}
    for node in graph.nodes:
        path = names.get(node.outputs[0].name)
        if path is None or path in probes:
            nodes.append(node)
            continue
        out = node.output
        inside = Value(f"{out.name}{_PROBE}", out.shape, out.dtype)
        nodes.append(replace(node, outputs=(inside,)))
        nodes.append(Node("Add", (inside.name, f"{path}{_PROBE}"), (out,)))
        probes[path] = mx.zeros(out.shape)
    return graph.with_nodes(nodes), probes


def _loss(probes: Mapping[str, mx.array], graph: Graph, batch: Any, rng: Any) -> mx.array:
    """A random projection of the output whose squared gradient is, on average, the Fisher's."""
    zeros = {f"{path}{_PROBE}": value for path, value in probes.items()}
    constants: Any = {**graph.constants, **zeros}
    whole = replace(graph, constants=constants)
    out = evaluate(whole, *batch)[graph.outputs[-1]]
    classes = out.ndim == 2 and len(graph.outputs) == 2  # scores, after their probabilities
    if classes and out.shape[-1] > 1:  # one logit has no other to be compared with
        scores = out - mx.logsumexp(out, axis=-1, keepdims=True)
        share = np.exp(np.array(mx.stop_gradient(scores), np.float64)).cumsum(axis=-1)
        drawn = (share < rng.random((len(share), 1)) * share[:, -1:]).sum(axis=-1)
        return mx.take_along_axis(scores, mx.array(drawn)[:, None], axis=-1).sum()
    spread = mx.stop_gradient(mx.sqrt(mx.maximum(mx.var(out), 0) * out[0].size)) + 1e-6
    return (out * mx.array(rng.standard_normal(out.shape), mx.float32)).sum() / spread


def cost(error: Array, gradient: Array, statistics: Statistics) -> float:
    """What ``error``, channels-first and shaped as the weight, costs."""
    groups, inputs = statistics.means.shape
    rows = error.reshape(groups, -1, inputs).astype(np.float64)
    quadratic = ((rows @ statistics.moments) * rows).sum(axis=-1).ravel()
    quadratic = np.maximum(quadratic, 0)  # moments about the mean may be below it, by rounding
    return float((gradient * quadratic).sum() / 2)
