"""Operations on each element, and on pairs of them."""

from __future__ import annotations

from collections.abc import Callable

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ...graph.graph import Node
from ..registry import lower
from ..values import dtype_of, numpy_type, scalar, scaled, shape_of, value_of

_BINARY: dict[str, Callable[..., Value]] = {
    "Add": ca.broadcasting_add,
    "Subtract": ca.broadcasting_sub,
    "Multiply": ca.broadcasting_mul,
    "Divide": ca.broadcasting_divide,
    "Maximum": ca.broadcasting_maximum,
    "Minimum": ca.broadcasting_minimum,
    "Equal": ca.broadcasting_equal,
    "NotEqual": ca.broadcasting_not_equal,
    "Greater": ca.broadcasting_greater,
    "LogicalAnd": ca.broadcasting_and,
    "LogicalOr": ca.broadcasting_or,
    "LogicalXor": ca.broadcasting_xor,
}

_UNARY: dict[str, Callable[..., Value]] = {
    "Abs": ca.abs_,
    "ArcCos": ca.acos,
    "ArcCosh": ca.acosh,
    "ArcSin": ca.asin,
    "ArcSinh": ca.asinh,
    "ArcTan": ca.atan,
    "ArcTanh": ca.atanh,
    "Cos": ca.cos,
    "Cosh": ca.cosh,
    "Erf": ca.erf,
    "Exp": ca.exp,
    "LogicalNot": ca.not_,
    "Relu": ca.relu,
    "Round": ca.round_,
    "Sigmoid": ca.sigmoid,
    "Silu": ca.silu,
    "Sin": ca.sin,
    "Sinh": ca.sinh,
    "Tan": ca.tan,
    "Tanh": ca.tanh,
}


_WRAPPING = frozenset({"Add", "Subtract", "Multiply"})  # around the end of small integers

# What those are of truth values; others take them as 0 and 1.
_OF_TRUTHS: dict[str, Callable[..., Value]] = {
    "Add": ca.broadcasting_or,
    "Multiply": ca.broadcasting_and,
    "Maximum": ca.broadcasting_or,
    "Minimum": ca.broadcasting_and,
    "LogicalAnd": ca.broadcasting_and,
    "LogicalOr": ca.broadcasting_or,
    "LogicalXor": ca.broadcasting_xor,
    "Equal": ca.broadcasting_equal,
    "NotEqual": ca.broadcasting_not_equal,
}


@lower(*_BINARY)
def binary(node: Node, x: Value, y: Value, *_: object) -> Value:
    if node.op in _OF_TRUTHS and _is_truth(x) and _is_truth(y):
        return _OF_TRUTHS[node.op](x, y)
    found = _BINARY[node.op](as_number(x), as_number(y))
    return wrapped(found, node.output.dtype) if node.op in _WRAPPING else found


def _is_truth(x: Value) -> bool:
    return bool(dtype_of(x) == np.bool_)


def as_number(x: Value) -> Value:
    """Truth values as 0 and 1, of which more of Core AI's operations are; all else as it is."""
    return ca.cast(x, np.int32) if _is_truth(x) else x


def as_truth(x: Value) -> Value:
    """Whether a number is not zero; truth values as they are."""
    return x if _is_truth(x) else ca.broadcasting_not_equal(x, scalar(x, 0))


@lower(*_UNARY)
def unary(node: Node, x: Value) -> Value:
    return wrapped(_UNARY[node.op](x), node.output.dtype)


@lower("Less")
def less(node: Node, x: Value, y: Value) -> Value:
    return ca.broadcasting_greater(as_number(y), as_number(x))


@lower("LessEqual")
def less_equal(node: Node, x: Value, y: Value) -> Value:
    """Not "not greater", which a NaN would satisfy."""
    x, y = as_number(x), as_number(y)
    return ca.broadcasting_or(ca.broadcasting_greater(y, x), ca.broadcasting_equal(x, y))


@lower("GreaterEqual")
def greater_equal(node: Node, x: Value, y: Value) -> Value:
    return less_equal(node, y, x)


@lower("Square")
def square(node: Node, x: Value) -> Value:
    return wrapped(ca.broadcasting_mul(x, x), node.output.dtype)


@lower("Power")
def power(node: Node, x: Value, y: Value) -> Value:
    exponent = value_of(y)
    if exponent is not None and np.all(exponent == 2) and shape_of(x) == node.output.shape:
        return square(node, x)
    return wrapped(ca.broadcasting_pow(x, y), node.output.dtype)


@lower("Negative")
def negative(node: Node, x: Value) -> Value:
    return wrapped(scaled(x, -1), node.output.dtype)


@lower("Floor")
def floor(node: Node, x: Value) -> Value:
    """By dividing 2x by 2: any other way is the identity on the GPU (coreai-torch#10).

    Beyond 16384 half precision holds whole numbers only, and twice of some would overflow.
    """
    down = ca.broadcasting_floor_divide(scaled(x, 2), scalar(x, 2))
    if dtype_of(x) != np.float16:
        return down
    is_small = ca.broadcasting_greater(scalar(x, 2.0**14), ca.abs_(x))
    return ca.broadcasting_where(is_small, down, x)


@lower("Ceil")
def ceil(node: Node, x: Value) -> Value:
    return negative(node, floor(node, negative(node, x)))


@lower("FloorDivide")
def floor_divide(node: Node, x: Value, y: Value) -> Value:
    """MLX rounds the quotient down; Core AI's own finds 9 times 0.1 in 1.0."""
    if node.output.dtype.startswith("float"):
        return floor(node, ca.broadcasting_divide(x, y))
    return wrapped(ca.broadcasting_floor_divide(x, y), node.output.dtype)


@lower("Remainder")
def remainder(node: Node, x: Value, y: Value) -> Value:
    """With the divisor's sign, as Python has it; Core AI's has the dividend's."""
    rest = ca.broadcasting_modulo(x, y)
    zero = scalar(rest, 0)
    opposed = ca.broadcasting_xor(
        ca.broadcasting_greater(zero, rest), ca.broadcasting_greater(zero, y)
    )
    wrong = ca.broadcasting_and(opposed, ca.broadcasting_not_equal(rest, zero))
    return ca.broadcasting_where(wrong, ca.broadcasting_add(rest, y), rest)


@lower("Sign")
def sign(node: Node, x: Value) -> Value:
    zero, dtype = scalar(x, 0), dtype_of(x).type
    above = ca.cast(ca.broadcasting_greater(x, zero), dtype)
    return ca.broadcasting_sub(above, ca.cast(ca.broadcasting_greater(zero, x), dtype))


@lower("Affine")
def affine(node: Node, x: Value, scale: Value, shift: Value) -> Value:
    factor, offset = value_of(scale), value_of(shift)
    if factor is None or (factor != 1).any():
        x = ca.broadcasting_mul(x, scale)
    return ca.broadcasting_add(x, shift) if offset is None or offset.any() else x


@lower("Relu6")
def relu6(node: Node, x: Value) -> Value:
    return ca.broadcasting_minimum(ca.relu(x), scalar(x, 6))


@lower("HardSwish")
def hard_swish(node: Node, x: Value) -> Value:
    gate = relu6(node, ca.broadcasting_add(x, scalar(x, 3)))
    return ca.broadcasting_mul(x, scaled(gate, 1 / 6))


@lower("LeakyRelu")
def leaky_relu(node: Node, x: Value, slope: float) -> Value:
    below = ca.broadcasting_minimum(x, scalar(x, 0))
    return ca.broadcasting_add(ca.relu(x), scaled(below, slope))


@lower("Gelu", "GeluTanh")
def gelu(node: Node, x: Value) -> Value:
    return ca.gelu(x, approximate="none" if node.op == "Gelu" else "tanh")


@lower("GeluSigmoid")
def gelu_sigmoid(node: Node, x: Value) -> Value:
    return ca.broadcasting_mul(x, ca.sigmoid(scaled(x, 1.702)))


@lower("Sqrt")
def sqrt(node: Node, x: Value, reciprocal: bool) -> Value:
    return ca.rsqrt(x) if reciprocal else ca.sqrt(x)


@lower("Log")
def log(node: Node, x: Value, base: str) -> Value:
    per_base = {"2": np.log(2.0), "10": np.log(10.0)}
    y = ca.log(x)
    return scaled(y, 1 / per_base[base]) if base in per_base else y


@lower("Log1p")
def log1p(node: Node, x: Value) -> Value:
    return ca.log(ca.broadcasting_add(x, scalar(x, 1)))


@lower("Expm1")
def expm1(node: Node, x: Value) -> Value:
    return ca.broadcasting_sub(ca.exp(x), scalar(x, 1))


@lower("LogAddExp")
def log_add_exp(node: Node, x: Value, y: Value) -> Value:
    """``max(x, y) + log(1 + exp(-|x - y|))``, which no operand makes overflow."""
    apart = ca.abs_(ca.broadcasting_sub(x, y))
    return ca.broadcasting_add(
        ca.broadcasting_maximum(x, y), log1p(node, ca.exp(scaled(apart, -1)))
    )


@lower("Select")
def select(node: Node, condition: Value, a: Value, b: Value) -> Value:
    return ca.broadcasting_where(condition, a, b)


@lower("AsType")
def as_type(node: Node, x: Value, _: object) -> Value:
    """Small integers are held in 32 bits, and wrap around as if they were not."""
    return wrapped(_cast(node, x), node.output.dtype)


def wrapped(y: Value, dtype: str) -> Value:
    """An int32 value as one of ``dtype``, where that is smaller."""
    if dtype not in _BITS:
        return y
    count, lowest = np.int32(2 ** _BITS[dtype]), np.int32(0)
    if not dtype.startswith("u"):
        lowest = np.int32(count // 2)
    rest = ca.broadcasting_modulo(ca.broadcasting_add(y, lowest), count)
    negative = ca.broadcasting_greater(np.int32(0), rest)  # the dividend's sign
    rest = ca.broadcasting_where(negative, ca.broadcasting_add(rest, count), rest)
    return ca.broadcasting_sub(rest, lowest)


_BITS = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16}


def _cast(node: Node, x: Value) -> Value:
    """coreai-core takes a float of an integer, or of a bool, of a float for that float itself
    (coreai-torch#9): what such a cast does to a number is done before it."""
    wanted, zero = numpy_type(node.output.dtype), scalar(x, 0)
    if wanted is np.bool_:
        return as_truth(x)
    if wanted is np.int32 and dtype_of(x).kind == "f":
        size = floor(node, ca.abs_(x))
        is_below = ca.broadcasting_greater(zero, x)
        x = ca.broadcasting_where(is_below, scaled(size, -1), size)
    return ca.cast(x, wanted)


@lower("ArcTan2")
def arc_tan2(node: Node, y: Value, x: Value) -> Value:
    """The angle of (x, y): that of the smaller over the larger side, put into its octant."""
    if dtype_of(x) == np.float16:  # whose squares and quotients half precision has not
        wide = (ca.cast(v, np.float32) for v in (y, x))
        return ca.cast(arc_tan2(node, *wide), np.float16)
    across, high, pi = ca.abs_(x), ca.abs_(y), np.float32(np.pi)
    larger = ca.broadcasting_maximum(across, high)
    safe = ca.broadcasting_maximum(larger, np.float32(1e-37))  # at (0, 0) the angle is 0
    angle = ca.atan(ca.broadcasting_divide(ca.broadcasting_minimum(across, high), safe))
    for turns, other in (
        (ca.broadcasting_greater(high, across), lambda a: ca.broadcasting_sub(pi / 2, a)),
        (ca.broadcasting_greater(np.float32(0), x), lambda a: ca.broadcasting_sub(pi, a)),
        (ca.broadcasting_greater(np.float32(0), y), lambda a: scaled(a, -1)),
    ):
        angle = ca.broadcasting_where(turns, other(angle), angle)
    return angle
