"""Weights that MLX holds in a few bits: what they stand for, and the bits themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .evaluators import dequantize

if TYPE_CHECKING:
    from .graph import Array

_PLAIN: dict[Any, Any] = {
    nn.QuantizedLinear: nn.Linear,
    nn.QuantizedEmbedding: nn.Embedding,
}


@dataclass(frozen=True)
class Quantized:
    """A constant as ``scales * codes + biases``.

    ``codes`` are whole numbers from zero of ``bits`` bits. ``scales`` and ``biases`` have the
    rank of ``codes``; along each axis there are as many as groups. ``codes`` is None for
    MLX's formats of small floats, of which no package has the bits.
    """

    codes: Array | None
    scales: Array
    biases: Array
    bits: int

    def transposed(self) -> Quantized:
        """Of the transposed matrices."""
        codes = None if self.codes is None else self.codes.swapaxes(-1, -2)
        scales, biases = (x.swapaxes(-1, -2) for x in (self.scales, self.biases))
        return Quantized(codes, scales, biases, self.bits)


def unpacked(
    weight: mx.array, scales: mx.array, biases: mx.array | None, size: int, bits: int, mode: str
) -> tuple[mx.array, Quantized]:
    """What packed integers stand for, in float32, and the integers themselves."""
    parts = [scales] if biases is None else [scales, biases]
    dense = dequantize(weight, *parts, size, bits, mode).astype(mx.float32)
    if biases is None or mode != "affine":
        return dense, Quantized(None, np.zeros(0), np.zeros(0), bits)
    ones, zeros = mx.ones(scales.shape), mx.zeros(scales.shape)
    codes = mx.round(dequantize(weight, ones, zeros, size, bits, mode))
    factors, shifts = (np.array(x.astype(mx.float32)) for x in (scales, biases))
    return dense, Quantized(np.array(codes).astype(np.uint8), factors, shifts, bits)


@contextmanager
def dequantized(model: nn.Module) -> Iterator[dict[str, Quantized]]:
    """Quantized layers as plain ones with the weights they stand for; gives their bits by path.

    Inside of ``left_as_it_was``, which gives them their packed weights back.
    """
    changed = {path: m for path, m in model.named_modules() if type(m) in _PLAIN}
    classes = {path: type(layer) for path, layer in changed.items()}
    found: dict[str, Quantized] = {}
    try:
        for path, layer in changed.items():
            parts = (layer["weight"], layer["scales"], layer.get("biases"))
            how = (layer.group_size, layer.bits, layer.mode)
            layer["weight"], bits = unpacked(*parts, *how)
            found[f"{path}.weight" if path else "weight"] = bits
            dict.pop(layer, "scales"), dict.pop(layer, "biases", None)
            layer.__class__ = _PLAIN[classes[path]]
        mx.eval([layer["weight"] for layer in changed.values()])
        yield found
    finally:
        for path, layer in changed.items():
            layer.__class__ = classes[path]
