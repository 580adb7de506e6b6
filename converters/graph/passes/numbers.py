"""Primitives of MLX that are others of constants: packed weights, bits, quotient and rest."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from ..graph import Graph, Node
from ..quantized import unpacked
from .builder import Builder, Rewrite, rewritten


def raise_numbers(graph: Graph) -> Graph:
    """A quantized product becomes one with the weights it stands for, under their name;
    ``Graph.quantized`` has their bits.

    Shifts by a number are products and quotients, ``DivMod`` is the two operations it gives.
    """
    return rewritten(graph, NUMBERS)


def _both(to: Builder, node: Node) -> Sequence[str]:
    quotient, rest = node.outputs
    return [
        to.add("FloorDivide", node.inputs, quotient.shape, like=quotient.name),
        to.add("Remainder", node.inputs, rest.shape, like=rest.name),
    ]


def _bits(to: Builder, node: Node) -> Sequence[str] | None:
    x, by = node.inputs
    number, kind, like = to.known(by), node["kind"], node.output.name
    if number is None or number.dtype.kind not in "iu" or (number < 0).any():
        return None
    power = number.astype(np.int64) + 1 if kind == "and" else 2 ** number.astype(np.int64)
    op = {"left_shift": "Multiply", "right_shift": "FloorDivide", "and": "Remainder"}.get(kind)
    if op is None or (power & (power - 1)).any() or (power > 2**30).any():
        return None
    factor = to.constant(power.astype(number.dtype), by)
    return [to.add(op, [x, factor], node.output.shape, like=like)]


def _quantized(to: Builder, node: Node) -> Sequence[str] | None:
    x, packed, *parts = node.inputs
    given = [to.known(name) for name in (packed, *parts)]
    arrays = [mx.array(a) for a in given if a is not None]
    if len(arrays) < len(given):
        return None
    weight, scales, *biases = arrays
    how = node["group_size"], node["bits"], node["mode"]
    dense, bits = unpacked(weight, scales, biases[0] if biases else None, *how)
    value = np.array(dense)
    is_layer = value.ndim == 2  # its matrix lies as (out, in), a stack of others as (in, out)
    if node["transpose"] != is_layer:
        value, bits = np.ascontiguousarray(value.swapaxes(-1, -2)), bits.transposed()
    name = packed if to.graph.uses[packed] == 1 else f"{packed}.dequantized"
    to.constants[name], to.quantized[name] = value, bits
    to.values[name] = to.values[packed].__class__(name, value.shape)
    op = "Linear" if is_layer else "Matmul"
    return [to.add(op, [x, name], node.output.shape, like=node.output.name)]


NUMBERS: dict[str, Rewrite] = {
    "BitwiseBinary": _bits,
    "DivMod": _both,
    "QuantizedMatmul": _quantized,
}
