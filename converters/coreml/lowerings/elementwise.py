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
    "ArcCos": mb.acos,
    "ArcSin": mb.asin,
    "ArcTan": mb.atan,
    "ArcTanh": mb.atanh,
    "Ceil": mb.ceil,
    "Cos": mb.cos,
    "Cosh": mb.cosh,
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
    "Sinh": mb.sinh,
    "Square": mb.square,
    "Tan": mb.tan,
    "Tanh": mb.tanh,
}


_WRAPPING = frozenset({"Add", "Subtract", "Multiply"})  # around the end of small integers

# What those are of truth values; others take them as 0 and 1.
_OF_TRUTHS: dict[str, Callable[..., Var]] = {
    "Add": mb.logical_or,
    "Multiply": mb.logical_and,
    "Maximum": mb.logical_or,
    "Minimum": mb.logical_and,
    "LogicalAnd": mb.logical_and,
    "LogicalOr": mb.logical_or,
    "LogicalXor": mb.logical_xor,
}


@lower(*_BINARY)
def binary(node: Node, x: Any, y: Any, *_: Any) -> Var:
    if node.op in _OF_TRUTHS and _is_truth(x) and _is_truth(y):
        return _OF_TRUTHS[node.op](x=x, y=y)
    found = _BINARY[node.op](x=as_number(x), y=as_number(y))
    return wrapped(found, node.output.dtype) if node.op in _WRAPPING else found


def _is_truth(x: Any) -> bool:
    return bool(x.dtype == (types.bool if isinstance(x, Var) else np.bool_))


def as_number(x: Any) -> Any:
    """Truth values as 0 and 1, which more of Core ML's operations take; all else as it is."""
    if not _is_truth(x):
        return x
    return mb.cast(x=x, dtype="int32") if isinstance(x, Var) else x.astype(np.int32)


@lower("Power")
def power(node: Node, x: Any, y: Any) -> Var:
    """A square is none of its powers to coremltools, which takes sqrt(pow(x, 2)) for x."""
    exponent = getattr(y, "val", None)
    if exponent is not None and np.all(exponent == 2) and tuple(x.shape) == node.output.shape:
        return wrapped(mb.square(x=x), node.output.dtype)
    return wrapped(mb.pow(x=x, y=y), node.output.dtype)


@lower("FloorDivide")
def floor_divide(node: Node, x: Any, y: Any) -> Var:
    """MLX rounds the quotient down; others, Core ML perhaps, find 9 times 0.1 in 1.0."""
    if node.output.dtype.startswith("float"):
        return mb.floor(x=mb.real_div(x=x, y=y))
    return wrapped(mb.floor_div(x=x, y=y), node.output.dtype)


@lower(*_UNARY)
def unary(node: Node, x: Var) -> Var:
    return wrapped(_UNARY[node.op](x=x), node.output.dtype)


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
    return wrapped(mb.mul(x=x, y=scalar(x, -1.0)), node.output.dtype)


@lower("Select")
def select(node: Node, condition: Var, a: Any, b: Any) -> Var:
    """Core ML wants one of the two values as large as the result."""
    shape = node.output.shape
    if np.broadcast_shapes(tuple(a.shape), tuple(b.shape)) != shape:
        a = widened(a, shape)
    return mb.select(cond=condition, a=a, b=b)


def widened(x: Var, shape: tuple[int, ...]) -> Var:
    """The value repeated to a shape that it broadcasts to."""
    if x.val is not None:
        return mb.const(val=np.ascontiguousarray(np.broadcast_to(x.val, shape)))
    wide = (1,) * (len(shape) - len(x.shape)) + tuple(x.shape)
    y = x if wide == tuple(x.shape) else mb.reshape(x=x, shape=list(wide))
    return mb.tile(x=y, reps=[n // m for n, m in zip(shape, wide, strict=True)])


_CASTS = {
    "float32": "fp32",
    "float16": "fp16",
    "int32": "int32",
    "uint32": "int32",
    "int64": "int32",
    "uint64": "int32",
    "bool": "bool",
}


_BITS = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16}


@lower("AsType")
def as_type(node: Node, x: Var, _: Any) -> Var:
    """Small integers are held in 32 bits, and wrap around as if they were not."""
    dtype = node.output.dtype
    if dtype not in _BITS:
        return mb.cast(x=x, dtype=_CASTS[dtype])
    return wrapped(mb.cast(x=x, dtype="int32"), dtype)


def wrapped(y: Var, dtype: str) -> Var:
    """An int32 value as one of ``dtype``, where that is smaller."""
    if dtype not in _BITS:
        return y
    count = np.int32(2 ** _BITS[dtype])
    if dtype.startswith("u"):
        return mb.mod(x=y, y=count)
    half = np.int32(count // 2)
    return mb.sub(x=mb.mod(x=mb.add(x=y, y=half), y=count), y=half)


@lower("LogAddExp")
def log_add_exp(node: Node, x: Any, y: Any) -> Var:
    """``log(exp(x) + exp(y))``: softplus, when y is zero."""
    if getattr(y, "val", None) is not None and not np.any(y.val):
        return mb.softplus(x=x)
    return mb.add(x=mb.softplus(x=mb.sub(x=x, y=y)), y=y)


def _in_float32(x: Var, *others: Var, fn: Callable[..., Var]) -> Var:
    """``fn`` of float32 values, whose squares and quotients half precision has not."""
    if x.dtype == types.fp32:
        return fn(x, *others)
    wide = [mb.cast(x=v, dtype="fp32") for v in (x, *others)]
    return mb.cast(x=fn(*wide), dtype="fp16")


@lower("ArcSinh", "ArcCosh")
def arc_hyperbolic(node: Node, x: Var) -> Var:
    """``log(x + sqrt(x² ± 1))``; of a negative number arcsinh is what it is of the positive."""
    by = {"ArcSinh": 1.0, "ArcCosh": -1.0}[node.op]

    def fn(x: Var) -> Var:
        size = mb.abs(x=x) if node.op == "ArcSinh" else x
        root = mb.sqrt(x=mb.add(x=mb.square(x=size), y=np.float32(by)))
        y = mb.log(x=mb.add(x=size, y=root), epsilon=np.float32(0))
        return mb.mul(x=y, y=mb.sign(x=x)) if node.op == "ArcSinh" else y

    return _in_float32(x, fn=fn)


@lower("ArcTan2")
def arc_tan2(node: Node, y: Var, x: Var) -> Var:
    """The angle of (x, y): that of the smaller over the larger side, put into its octant."""
    pi = np.float32(np.pi)

    def fn(y: Var, x: Var) -> Var:
        wide, high = mb.abs(x=x), mb.abs(x=y)
        larger = mb.maximum(x=wide, y=high)
        safe = mb.maximum(x=larger, y=np.float32(1e-37))  # at (0, 0) the angle is 0
        angle = mb.atan(x=mb.real_div(x=mb.minimum(x=wide, y=high), y=safe))
        steep = mb.greater(x=high, y=wide)
        angle = mb.select(cond=steep, a=mb.sub(x=pi / 2, y=angle), b=angle)
        left, below = (mb.less(x=v, y=np.float32(0)) for v in (x, y))
        angle = mb.select(cond=left, a=mb.sub(x=pi, y=angle), b=angle)
        return mb.select(cond=below, a=mb.mul(x=angle, y=np.float32(-1)), b=angle)

    shape = node.output.shape
    y, x = (v if tuple(v.shape) == shape else widened(v, shape) for v in (y, x))
    return _in_float32(y, x, fn=fn)
