"""Eight-bit activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var, types

from ...graph.graph import Node
from ..registry import lower


def _zero_point(value: int) -> dict[str, Any]:
    return {"zero_point": np.int8(value)} if value else {}


@lower("Quantize")
def quantize(node: Node, x: Var, scale: float, zero_point: int) -> Var:
    step = types.nptype_from_builtin(x.dtype)(scale)
    return mb.quantize(input=x, scale=step, output_dtype="int8", **_zero_point(zero_point))


@lower("Dequantize")
def dequantize(node: Node, x: Var, scale: float, zero_point: int) -> Var:
    dtype = np.float16 if node.output.dtype == "float16" else np.float32
    return mb.dequantize(input=x, scale=dtype(scale), **_zero_point(zero_point))
