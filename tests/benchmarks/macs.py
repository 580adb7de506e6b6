"""Multiply-adds of every variant, counted in its graph, beside those that are published.

    python -m tests.benchmarks.macs [NAME...]

The graph is traced at the native size, and nothing of it computed. "layers" counts convolutions
and linear layers, "all" products of activations as well, as attention has them. Published
figures are rounded, to 10 million as a rule; some count pools, norms or resizing, too.
"""

from __future__ import annotations

import logging
import math
import sys

from converters.export.build import to_graph
from converters.function import model_function
from converters.graph.graph import Graph, Node
from ondevice import create_model, list_models, model_spec

MOST = 60_000_000  # parameters of the variants that are built if no name is given
LINE = "{:36} {:>10} {:>10} {:>10} {:>7} {:>7}"


def multiply_adds(graph: Graph) -> tuple[int, int]:
    """Of layers with weights, and of all products."""
    layers = products = 0
    shapes = {value.name: value.shape for value in graph.inputs}
    shapes |= {name: array.shape for name, array in graph.constants.items()}
    for node in graph.nodes:
        shapes |= {value.name: value.shape for value in node.outputs}
        given = [shapes[name] for name in node.inputs]
        size = math.prod(node.outputs[0].shape)
        if node.op in ("Convolution", "Linear"):
            layers += size * math.prod(given[1][1:])
        elif node.op == "Matmul":
            products += size * _inner(node, given[0])
        elif node.op == "Attention":
            products += 2 * math.prod(given[0]) * given[1][-2]
    return layers, layers + products


def _inner(node: Node, shape: tuple[int, ...]) -> int:
    """How many numbers are summed for an element of a product."""
    transposed = node.args and node.args[0]
    return shape[-2] if transposed else shape[-1]


def main() -> None:
    logging.disable(logging.WARNING)  # of licences: no weights are loaded
    specs = [model_spec(name) for name in sys.argv[1:] or list_models()]
    if not sys.argv[1:]:
        specs = [s for s in specs if s.macs and (s.params or 0) < MOST]
    print(LINE.format("model", "published", "layers", "all", "", ""))
    for spec in specs:
        model = create_model(spec.name).eval()
        counts = multiply_adds(to_graph(model_function(model, model.signature.select(None))))
        shares = [f"{count / spec.macs:.3f}" if spec.macs else "-" for count in counts]
        millions = [f"{(count or 0) / 1e6:.0f}M" for count in (spec.macs, *counts)]
        print(LINE.format(spec.name, *millions, *shares), flush=True)


if __name__ == "__main__":
    main()
