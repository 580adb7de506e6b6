from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph import Array, Graph, Node
from .builder import Builder, Rewrite, rewritten


def plain_strides(graph: Graph) -> Graph:
    """A stretched input and a stride do not meet in one convolution, which packages lack.

    ``conv_general`` with both is a transposed convolution of which every so-many-th element is
    taken. A flipped kernel of an input that is not stretched is another kernel.
    """
    return rewritten(graph, _RULES)


def _convolution(to: Builder, node: Node) -> Sequence[str] | None:
    stretched, weight = set(node["input_dilation"]) != {1}, to.known(node.inputs[1])
    if not stretched and node["flip"] and weight is not None:
        return [_turned(to, node, weight)]
    if not stretched or set(node["stride"]) == {1}:
        return None
    batch, *_, channels = node.output.shape
    full = (batch, *_sizes(to, node), channels)
    args = node.with_args(stride=(1,) * len(node["stride"])).args
    whole = to.add(node.op, node.inputs, full, *args, like=node.output.name)
    every = (1, *node["stride"], 1)
    return [
        to.add("Slice", [whole], node.output.shape, (0,) * len(full), full, every, like=whole)
    ]


def _turned(to: Builder, node: Node, weight: Array) -> str:
    x, name, *bias = node.inputs
    turned = np.ascontiguousarray(np.flip(weight, tuple(range(1, weight.ndim - 1))))
    if to.graph.uses[name] == 1:
        to.constants[name] = turned  # and keeps its path
    else:
        name = to.constant(turned, name)
    args, out = node.with_args(flip=False).args, node.output
    return to.add(node.op, [x, name, *bias], out.shape, *args, like=out.name)


def _sizes(to: Builder, node: Node) -> list[int]:
    """Along each spatial axis, of the result without a stride."""
    axes = zip(
        to.shape(node.inputs[0])[1:-1],
        to.shape(node.inputs[1])[1:-1],
        node["low"],
        node["high"],
        node["dilation"],
        node["input_dilation"],
        strict=True,
    )
    return [(n - 1) * d + low + high - (k - 1) * r + 1 for n, k, low, high, r, d in axes]


_RULES: dict[str, Rewrite] = {"Convolution": _convolution}
