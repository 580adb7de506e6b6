"""Scales and shifts per channel end up in the layer before or after them.

``Affine(x, scale, shift)`` is ``x * scale + shift`` with a vector over the last axis. Batch
norms, layer scales and input normalization are made of these.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

import numpy as np

from ..graph import Array, Graph, Node, Value, free_name

_WEIGHTED = frozenset({"Convolution", "Linear"})
_MOVES = frozenset({"Reshape", "Transpose"})


def fold_affine(graph: Graph) -> Graph:
    """Fold per-channel scales and shifts into convolutions, linear layers and layer norms.

    Backwards first: ``Affine(Convolution(x))`` takes scale and shift into weight and bias.
    What is left goes forwards into an unpadded convolution or a linear layer; a padded one
    takes the scale only, since its zeros are zeros after the shift.
    """
    folder = _Folder(graph)
    return _forwards(folder.backwards())


class _Folder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[str, Array] = dict(graph.constants)
        self.nodes: dict[str, Node] = {}
        self.aliases: dict[str, str] = {}
        self.spent: set[str] = set()  # constants that nothing reads any more

    def backwards(self) -> Graph:
        for node in self.graph.nodes:
            self.nodes[node.outputs[0].name] = node
            found = self._as_affine(node)
            if found is None:
                continue
            x, scale, shift = found
            self.spent |= {i for i in node.inputs if i != x and self.graph.uses[i] == 1}
            if self._behind_moves(x, scale, shift):
                self.aliases[node.output.name] = x
                del self.nodes[node.output.name]
                continue
            layer = self.nodes.get(x)
            merged = layer and self._alone(x) and self._into(layer, scale, shift, node.output)
            if merged:
                del self.nodes[x]
            self.nodes[node.output.name] = merged or self._affine(x, scale, shift, node.output)
        folded = self.graph.with_nodes(self.nodes.values(), constants=self.constants)
        return folded.rename(self.aliases)

    def _behind_moves(self, x: str, scale: Array, shift: Array) -> bool:
        """Fold one factor for all channels into the layer behind reshapes and transposes.

        This is where the scale of attention's queries goes.
        """
        if shift.any() or (scale != scale[0]).any():
            return False
        layer = self.nodes.get(x)
        while layer and layer.op in _MOVES and self._alone(layer.output.name):
            layer = self.nodes.get(layer.inputs[0])
        if not layer or layer.op == "Split" or layer.output.name == x:
            return False
        if not self._alone(layer.output.name):
            return False
        folded = self._into(layer, scale[:1], shift[:1], layer.output)
        if folded:
            self.nodes[layer.output.name] = folded
        return folded is not None

    def _alone(self, name: str) -> bool:
        return self.graph.uses[name] == 1 and name not in self.graph.outputs

    def _as_affine(self, node: Node) -> tuple[str, Array, Array] | None:
        """What a node computes, if that is a scale and a shift per channel of one value."""
        if node.op not in {"Add", "Subtract", "Multiply", "Divide"}:
            return None
        (a, b), one, zero = node.inputs, np.ones(1, np.float32), np.zeros(1, np.float32)
        left, right = self._vector(a, node), self._vector(b, node)
        if (left is None) == (right is None) or not np.issubdtype(
            node.output.dtype, np.floating
        ):
            return None
        x, c = (a, right) if right is not None else (b, left)
        assert c is not None
        if self.graph.shape(x) != node.output.shape:
            return None
        if node.op == "Divide":
            if right is None:
                return None
            with np.errstate(divide="ignore", over="ignore"):
                c = 1 / c
        if not np.isfinite(c).all():  # in a sum with others it would not stay what it is
            return None
        if node.op == "Add":
            return x, one, c
        if node.op == "Subtract":
            return (x, one, -c) if right is not None else (x, -one, c)
        return x, c, zero

    def _vector(self, name: str, node: Node) -> Array | None:
        """A constant that varies along the last axis only, as a vector, maybe of length 1."""
        value = self.constants.get(name)
        if value is None or value.size != (value.shape[-1] if value.ndim else 1):
            return None
        if value.dtype.kind == "c":
            return None
        return value.reshape(-1).astype(np.float32)

    def _into(self, layer: Node, scale: Array, shift: Array, out: Value) -> Node | None:
        if layer.op == "Affine":
            old_scale, old_shift = (self.constants[i] for i in layer.inputs[1:])
            return self._affine(
                layer.inputs[0], old_scale * scale, old_shift * scale + shift, out
            )
        if layer.op == "LayerNorm" and layer["axes"] == (len(out.shape) - 1,):
            affine = [self.constants[i] for i in layer.inputs[1:]] or [np.ones(1), np.zeros(1)]
            gamma, beta = affine[0] * scale, affine[1] * scale + shift
            names = self._store(layer, out, gamma, beta)
            return replace(layer, inputs=(layer.inputs[0], *names), outputs=(out,))
        if layer.op in _WEIGHTED and layer.inputs[1] in self.constants:
            return self._weighted(layer, scale, shift, out)
        return None

    def _weighted(self, layer: Node, scale: Array, shift: Array, out: Value) -> Node:
        x, weight, *bias = layer.inputs
        old = self.constants[bias[0]] if bias else np.zeros(1, np.float32)
        if (scale != 1).any():
            w = self.constants[weight]
            weight = self._name(weight)
            self.constants[weight] = w * scale.reshape(-1, *[1] * (w.ndim - 1))
        if (old * scale + shift).any():
            bias_name = self._name(bias[0]) if bias else self._free_bias(weight)
            self.constants[bias_name] = _widen(old * scale + shift, out)
            return replace(layer, inputs=(x, weight, bias_name), outputs=(out,))
        return replace(layer, inputs=(x, weight), outputs=(out,))

    def _name(self, name: str) -> str:
        """The name itself while one node reads it, a variation of it otherwise."""
        if name not in self.constants or self.graph.uses[name] <= 1:
            return name
        return free_name(f"{name}.0", self.constants)

    def _free_bias(self, weight: str) -> str:
        """A name for the layer's new bias: the folded parameter's own, if it is called so."""
        name = weight.removesuffix("weight") + "bias"
        if name not in self.spent:
            return _bias_of(weight, self.constants)
        self.spent.discard(name)
        return name

    def _affine(self, x: str, scale: Array, shift: Array, out: Value) -> Node:
        node = Node("Affine", (x,), (out,))
        return replace(node, inputs=(x, *self._store(node, out, scale, shift)))

    def _store(self, node: Node, out: Value, scale: Array, shift: Array) -> tuple[str, str]:
        names = f"{out.name}.scale", f"{out.name}.shift"
        for name, value in zip(names, (scale, shift), strict=True):
            self.constants[name] = _widen(value, out)
        return names


def _bias_of(weight: str, taken: Container[str]) -> str:
    """A name for the bias that a layer without one gets: not another parameter's."""
    return free_name(weight.removesuffix("weight") + "bias", taken)


def _widen(vector: Array, out: Value) -> Array:
    return np.ascontiguousarray(np.broadcast_to(vector, out.shape[-1:]), np.float32)


def _forwards(graph: Graph) -> Graph:
    """Fold ``Affine`` into the convolution or linear layer that alone reads it."""
    constants = dict(graph.constants)
    nodes = {n.outputs[0].name: n for n in graph.nodes}
    for affine in graph.nodes:
        readers = graph.consumers.get(affine.outputs[0].name, [])
        if affine.op != "Affine" or graph.uses[affine.output.name] != 1 or not readers:
            continue
        (layer,) = readers
        layer = nodes[layer.outputs[0].name]
        if not _takes(layer, affine.output.name, graph):
            continue
        x, scale, shift = affine.inputs[0], *(constants[i] for i in affine.inputs[1:])
        weight, *bias = layer.inputs[1:]
        if _is_padded(layer):
            with np.errstate(divide="ignore", invalid="ignore"):
                left = shift / scale
            if not np.isfinite(left).all():
                continue
            constants[affine.inputs[1]] = np.ones_like(scale)
            constants[affine.inputs[2]] = left
            if not left.any():
                nodes.pop(affine.output.name)
            inputs = (affine.output.name if left.any() else x, weight, *bias)
        else:
            nodes.pop(affine.output.name)
            name = bias[0] if bias else _bias_of(weight, constants)
            total = _response(constants[weight], shift) + (constants[bias[0]] if bias else 0)
            constants[name] = total.astype(np.float32)
            inputs = (x, weight, name)
        constants[weight] = _scale_inputs(constants[weight], scale)
        nodes[layer.output.name] = replace(layer, inputs=inputs)
    return graph.with_nodes(nodes.values(), constants=constants)


def _takes(layer: Node, x: str, graph: Graph) -> bool:
    if layer.op not in _WEIGHTED or layer.inputs[0] != x:
        return False
    if layer.op == "Convolution" and (layer["flip"] or set(layer["input_dilation"]) != {1}):
        return False  # a transposed convolution
    if layer.inputs[1] in graph.quantized:  # a factor an input would not leave it its bits
        return False
    return all(i in graph.constants and graph.uses[i] == 1 for i in layer.inputs[1:])


def _is_padded(layer: Node) -> bool:
    return layer.op == "Convolution" and any((*layer["low"], *layer["high"]))


def _per_input(weight: Array, vector: Array) -> Array:
    """A vector over a layer's inputs, shaped to multiply its (out, ..., in/groups) weight."""
    groups = vector.size // weight.shape[-1]
    rows = vector.reshape(groups, *[1] * (weight.ndim - 2), weight.shape[-1])
    return np.repeat(rows, weight.shape[0] // groups, axis=0)


def _scale_inputs(weight: Array, scale: Array) -> Array:
    return (weight * _per_input(weight, scale)).astype(np.float32)


def _response(weight: Array, shift: Array) -> Array:
    """What a constant input adds to each output."""
    return (weight * _per_input(weight, shift)).reshape(weight.shape[0], -1).sum(axis=1)
