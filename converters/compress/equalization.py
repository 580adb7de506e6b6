"""Equalize the channels of a value before all of them are rounded with one scale.

A value divided by a factor a channel, and the weights behind it multiplied by the same,
compute the same. Factors pass through what commutes with them (rectifiers, sums, pools,
concatenations, the values of attention) up to the weights on either side, which take them:
rows of the layers that write a channel, columns of those that read it. So a residual stream
with a dozen readers has one factor a channel, and a channel that anything else reads
(a GELU, a softmax, a norm) keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from ..graph.graph import Array, Graph, Node
from ..graph.ops import op, scale_of
from .rounding import Statistics

# The power of a channel's range in its factor; the rest is the power of its weights.
EQUALIZATIONS = {
    "smooth": 0.5,  # Xiao et al., "SmoothQuant", 2023
    "repq": 1.0,  # Li et al., "RepQ-ViT: scale reparameterization", 2023: all ranges alike
}
# A channel is enlarged less than reduced: on other images it reaches further than here.
_LIMITS = np.log(0.5), np.log(32)


def _is_layer(node: Node) -> bool:
    """Whether a node's weight can take up factors: not a transposed convolution's."""
    entry = op(node.op)
    return entry.kind == "layer" and entry.scale == "weights"


def equalize(
    graph: Graph, statistics: Mapping[str, Statistics], method: str
) -> tuple[Graph, dict[str, Statistics]]:
    """The channels-first ``graph`` and its layers' ``statistics``, both equalized.

    The graph computes what it did. ``statistics`` are by a layer's weight; what no layer with
    statistics reads keeps its channels.
    """
    channels = Channels(graph)
    factors = _factors(channels, statistics, EQUALIZATIONS[method])
    constants, equalized = dict(graph.constants), dict(statistics)
    nodes = []
    for node in graph.nodes:
        if channels.absorbs(node):
            after = factors[channels.of(node.output.name, channels.axis(node))]
            _, *vectors = node.inputs
            if _is_layer(node):
                before = factors[channels.of(node.inputs[0], channels.axis(node))]
                weight, *vectors = vectors
                value = constants[weight]
                constants[weight] = value * columns(node, value, before) / _rows(after, value)
                if weight in statistics:
                    equalized[weight] = statistics[weight].divided(before)
            elif not vectors and (after != 1).any():
                node, added = _with_affine(node, len(after))
                constants |= added
                vectors = list(added)
            for name in vectors:
                constants[name] = constants[name] / after.astype(np.float32)
        nodes.append(node)
    return graph.with_nodes(nodes, constants=constants), equalized


def _with_affine(node: Node, channels: int) -> tuple[Node, dict[str, Array]]:
    """A norm that is given a scale of ones and a shift of zeros."""
    out = node.output.name
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    added = {f"{out}.scale": ones, f"{out}.shift": zeros}
    return replace(node, inputs=(*node.inputs, *added)), added


def columns(node: Node, value: Array, channels: Array) -> Array:
    """A factor for each input channel as one for each of a weight's inputs."""
    groups = groups_of(node)
    each = np.repeat(channels.reshape(groups, -1), value.shape[0] // groups, axis=0)
    return each.reshape(*each.shape, *[1] * (value.ndim - 2)).astype(np.float32)


def _rows(channels: Array, value: Array) -> Array:
    return channels.reshape(-1, *[1] * (value.ndim - 1)).astype(np.float32)


def _factors(channels: Channels, statistics: Mapping[str, Statistics], power: float) -> Array:
    """A factor for each class of channels: the geometric mean of what its readers want."""
    wanted = np.zeros(len(channels.parent))
    readers = np.zeros(len(channels.parent))
    for node in filter(channels.absorbs, channels.graph.nodes):
        path = node.inputs[1] if _is_layer(node) else ""
        if path in statistics:
            classes = channels.of(node.inputs[0], channels.axis(node))
            weight = channels.graph.constants[path]
            share = _shares(node, weight)
            want = power * _log(statistics[path].peaks) - (1 - power) * _log(share)
            aim = np.median(want) if classes.all() else want[classes == 0].max()
            np.add.at(wanted, classes, want - aim)
            np.add.at(readers, classes, 1)
    wanted[0] = 0
    return np.exp(np.clip(wanted / np.maximum(readers, 1), *_LIMITS))


def _shares(node: Node, weight: Array) -> Array:
    """For each input channel its largest weight, as a share of the largest of its row."""
    rows = np.abs(weight).reshape(*weight.shape[:2], -1).max(axis=2)
    rows = rows / np.maximum(rows.max(axis=1, keepdims=True), 1e-12)
    return rows.reshape(groups_of(node), -1, weight.shape[1]).max(axis=1).ravel()


def _log(values: Array) -> Array:
    return np.log(np.maximum(values, 1e-9))


def groups_of(node: Node) -> int:
    """The groups of a convolution; 1 for any other layer."""
    return node["groups"] if node.op == "Conv" else 1


class Channels:
    """The class of each channel of each value: all of a class share one factor.

    Class 0 has none: what something reads that does not commute with a factor, or the graph
    gives out. A value's channels lie along one axis; along any other it is left alone.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.parent = np.zeros(1, np.intp)
        self.known: dict[str, tuple[int, Array]] = {}
        for node in graph.nodes:
            _visit(node)(self, node)
        self._pin(graph.outputs)
        self.roots = self._find(np.arange(len(self.parent)))

    def of(self, name: str, axis: int) -> Array:
        """The classes of a value's channels along ``axis``."""
        axis %= len(self.graph.shape(name))
        if name in self.known and self.known[name][0] == axis:
            return self._find(self.known[name][1])
        self._pin([name])
        return np.zeros(self.graph.shape(name)[axis], np.intp)

    def absorbs(self, node: Node) -> bool:
        """Whether constants of a layer or norm can take the factors of its channels."""
        own = node.inputs[1:]
        alone = all(n in self.graph.constants and self.graph.uses[n] == 1 for n in own)
        norm = node.op == "LayerNorm" and len(node["axes"]) == 1
        return alone and (norm or _is_layer(node))

    def axis(self, node: Node) -> int:
        """Where a layer or norm has its channels."""
        rank = len(node.output.shape)
        axis: int = {"Conv": 1, "Linear": rank - 1}.get(node.op) or node["axes"][0]
        return axis % rank

    def _find(self, classes: Array) -> Array:
        while not np.array_equal(above := self.parent[classes], classes):
            classes = above
        return classes

    def _join(self, a: Array, b: Array) -> None:
        while not np.array_equal(a := self._find(a), b := self._find(b)):
            self.parent[np.maximum(a, b)] = np.minimum(a, b)

    def _pin(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self.known:
                classes = self.known[name][1]
                self._join(classes, np.zeros_like(classes))

    def _other(self, node: Node) -> None:
        self._pin(node.inputs)

    def _layer(self, node: Node) -> None:
        if not self.absorbs(node):
            return self._pin(node.inputs)
        axis = self.axis(node)
        classes = self.of(node.inputs[0], axis)  # none if they lie along another axis
        if not _is_layer(node):
            self._join(classes, np.zeros_like(classes))
        fresh = len(self.parent) + np.arange(node.output.shape[axis])
        self.parent = np.concatenate([self.parent, fresh])
        self.known[node.output.name] = axis, fresh
        return None

    def _same(self, node: Node) -> None:
        if node.inputs[0] in self.known:
            self.known[node.output.name] = self.known[node.inputs[0]]

    def _sum(self, node: Node) -> None:
        first, second = (self.known.get(i) for i in node.inputs)
        like = all(self.graph.shape(i) == node.output.shape for i in node.inputs)
        if not (like and first and second and first[0] == second[0]):
            return self._pin(node.inputs)
        self._join(first[1], second[1])
        self.known[node.output.name] = first
        return None

    def _product(self, node: Node) -> None:
        """The product follows the one factor that is free; a gate is not."""
        free = [
            i for i in node.inputs if i in self.known and self._find(self.known[i][1]).any()
        ]
        if len(free) == 1 and self.graph.shape(free[0]) == node.output.shape:
            self.known[node.output.name] = self.known[free[0]]
        else:
            self._pin(free)

    def _split(self, node: Node) -> None:
        axis, classes = self.known.get(node.inputs[0], (-1, np.zeros(0, np.intp)))
        cut = node["axis"] == axis
        parts = np.split(classes, node["indices"]) if cut else [classes] * len(node.outputs)
        if axis >= 0:
            self.known |= {v.name: (axis, p) for v, p in zip(node.outputs, parts, strict=True)}

    def _concatenate(self, node: Node) -> None:
        (axis,) = node.args
        parts = [self.of(i, axis) for i in node.inputs]
        self.known[node.output.name] = axis, np.concatenate(parts)

    def _reshape(self, node: Node) -> None:
        """Channels stay if all up to them does."""
        axis, classes = self.known.get(node.inputs[0], (-1, np.zeros(0, np.intp)))
        if self.graph.shape(node.inputs[0])[: axis + 1] != node.output.shape[: axis + 1]:
            return self._pin(node.inputs)
        if axis >= 0:
            self.known[node.output.name] = axis, classes
        return None

    def _reduce(self, node: Node) -> None:
        axis, _ = self.known.get(node.inputs[0], (-1, None))
        if scale_of(node) != "linear" or axis in node["axes"] or not node["keep"]:
            return self._pin(node.inputs)
        self._same(node)
        return None

    def _matmul(self, node: Node) -> None:
        """Rows of the left side are rows of the product: so lie the values of attention."""
        left, right = node.inputs
        self._pin([right])
        rank = len(node.output.shape)
        axis, classes = self.known.get(left, (-1, np.zeros(0, np.intp)))
        if axis != rank - (1 if node["transpose_x"] else 2):
            return self._pin([left])
        self.known[node.output.name] = rank - 2, classes
        return None


# By the layout rule of an operation, and then by how its result scales.
_VISITS: dict[str, Callable[[Channels, Node], None]] = {
    "convolution": Channels._layer,
    "layer_norm": Channels._layer,
    "linear": Channels._layer,
    "unary linear": Channels._same,
    "image linear": Channels._same,
    "elementwise linear": Channels._sum,
    "elementwise product": Channels._product,
    "concatenate": Channels._concatenate,
    "matmul": Channels._matmul,
    "reduce": Channels._reduce,
    "reshape": Channels._reshape,
    "split": Channels._split,
}


def _visit(node: Node) -> Callable[[Channels, Node], None]:
    layout = op(node.op).layout
    by_scale = _VISITS.get(f"{layout} {scale_of(node)}", Channels._other)
    return _VISITS.get(layout, by_scale)
