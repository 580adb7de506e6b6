"""Operations on each element, and on pairs of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var, types

from ...graph.graph import Node
from ..registry import lower


def scalar(x: Var, value: float) -> Any:
    """A constant of x's type; in half precision what is too small becomes the smallest."""
    dtype = types.nptype_from_builtin(x.dtype)
    if dtype is np.float16 and 0 < abs(value) < 2**-24:
        value = 2**-24 if value > 0 else -(2**-24)
    return dtype(value)


_BINARY: dict[str, Callable[..., Var]] = {
    "Add": mb.add,
    "Subtract": mb.sub,
    "Multiply": mb.mul,
    "Divide": mb.real_div,
    "Maximum": mb.maximum,
    "Minimum": mb.minimum,
    "Remainder": mb.mod,
    "Equal": mb.equal,
    "NotEqual": mb.not_equal,
    "Less": mb.less,
    "LessEqual": mb.less_equal,
    "Greater": mb.greater,
    "GreaterEqual": mb.greater_equal,
    "LogicalAnd": mb.logical_and,
    "LogicalOr": mb.logical_or,
    "LogicalXor": mb.logical_xor,
}

_UNARY: dict[str, Callable[..., Var]] = {
    "Abs": mb.abs,
    "Ceil": mb.ceil,
    "Cos": mb.cos,
    "Erf": mb.erf,
    "Exp": mb.exp,
    "Floor": mb.floor,
    "LogicalNot": mb.logical_not,
    "Relu": mb.relu,
    "Relu6": mb.relu6,
    "Round": mb.round,
    "Sigmoid": mb.sigmoid,
    "Sign": mb.sign,
    "Silu": mb.silu,
    "Sin": mb.sin,
    "Square": mb.square,
    "Tan": mb.tan,
    "Tanh": mb.tanh,
}


@lower(*_BINARY)
def binary(node: Node, x: Any, y: Any, *_: Any) -> Var:
    return _BINARY[node.op](x=x, y=y)


@lower("Power")
def power(node: Node, x: Any, y: Any) -> Var:
    """A square is none of its powers to coremltools, which takes sqrt(pow(x, 2)) for x."""
    exponent = getattr(y, "val", None)
    if exponent is not None and np.all(exponent == 2) and tuple(x.shape) == node.output.shape:
        return mb.square(x=x)
    return mb.pow(x=x, y=y)


@lower("FloorDivide")
def floor_divide(node: Node, x: Any, y: Any) -> Var:
    """MLX rounds the quotient down; others, Core ML perhaps, find 9 times 0.1 in 1.0."""
    if node.output.dtype.startswith("float"):
        return mb.floor(x=mb.real_div(x=x, y=y))
    return mb.floor_div(x=x, y=y)


@lower(*_UNARY)
def unary(node: Node, x: Var) -> Var:
    return _UNARY[node.op](x=x)


@lower("Affine")
def affine(node: Node, x: Var, scale: Var, shift: Var) -> Var:
    if (scale.val != 1).any():
        x = mb.mul(x=x, y=scale)
    return mb.add(x=x, y=shift) if shift.val.any() else x


@lower("Gelu", "GeluTanh", "GeluSigmoid")
def gelu(node: Node, x: Var) -> Var:
    modes = {
        "Gelu": "EXACT",
        "GeluTanh": "TANH_APPROXIMATION",
        "GeluSigmoid": "SIGMOID_APPROXIMATION",
    }
    return mb.gelu(x=x, mode=modes[node.op])


@lower("HardSwish")
def hard_swish(node: Node, x: Var) -> Var:
    gate = mb.sigmoid_hard(x=x, alpha=scalar(x, 1 / 6), beta=scalar(x, 0.5))
    return mb.mul(x=x, y=gate)


@lower("LeakyRelu")
def leaky_relu(node: Node, x: Var, slope: float) -> Var:
    return mb.leaky_relu(x=x, alpha=scalar(x, slope))


@lower("Sqrt")
def sqrt(node: Node, x: Var, reciprocal: bool) -> Var:
    return mb.rsqrt(x=x, epsilon=scalar(x, 0.0)) if reciprocal else mb.sqrt(x=x)


@lower("Log")
def log(node: Node, x: Var, base: str) -> Var:
    y = mb.log(x=x, epsilon=scalar(x, 0.0))
    per_base = {"2": np.log(2.0), "10": np.log(10.0)}
    return mb.mul(x=y, y=scalar(x, 1 / per_base[base])) if base in per_base else y


@lower("Log1p")
def log1p(node: Node, x: Var) -> Var:
    return mb.log(x=mb.add(x=x, y=scalar(x, 1.0)), epsilon=scalar(x, 0.0))


@lower("Expm1")
def expm1(node: Node, x: Var) -> Var:
    return mb.sub(x=mb.exp(x=x), y=scalar(x, 1.0))


@lower("Negative")
def negative(node: Node, x: Var) -> Var:
    return mb.mul(x=x, y=scalar(x, -1.0))


@lower("Select")
def select(node: Node, condition: Var, a: Any, b: Any) -> Var:
    return mb.select(cond=condition, a=a, b=b)


_CASTS = {
    "float32": "fp32",
    "float16": "fp16",
    "int32": "int32",
    "uint32": "int32",
    "int64": "int32",
    "bool": "bool",
}


@lower("AsType")
def as_type(node: Node, x: Var, _: Any) -> Var:
    return mb.cast(x=x, dtype=_CASTS[node.output.dtype])


@lower("LogAddExp")
def log_add_exp(node: Node, x: Any, y: Any) -> Var:
    """``log(exp(x) + exp(y))``: softplus, when y is zero."""
    if getattr(y, "val", None) is not None and not np.any(y.val):
        return mb.softplus(x=x)
    return mb.add(x=mb.softplus(x=mb.sub(x=x, y=y)), y=y)
