"""Eight-bit activations."""

from __future__ import annotations

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ...graph.graph import Node
from ..registry import lower
from ..values import dtype_of, shape_of, signed


@lower("Quantize")
def quantize(node: Node, x: Value, scale: float, zero_point: int) -> Value:
    kind, axes = dtype_of(x), signed(range(len(shape_of(x))))
    return ca.quantize(x, np.array(scale, kind), np.int8(zero_point), np.array(0, kind), axes)


@lower("Dequantize")
def dequantize(node: Node, x: Value, scale: float, zero_point: int) -> Value:
    kind = np.dtype("float16" if node.output.dtype == "float16" else "float32")
    axes = signed(range(len(shape_of(x))))
    return ca.dequantize(x, np.array(scale, kind), np.int8(zero_point), np.array(0, kind), axes)
