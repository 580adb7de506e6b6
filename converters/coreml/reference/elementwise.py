"""Elementwise arithmetic, comparisons and activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .registry import Array, blockwise, evaluates

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "pow": np.power,
    "floor_div": np.floor_divide,
    "mod": np.mod,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}
_UNARY: dict[str, Callable[[Any], Any]] = {
    name: getattr(np, name)
    for name in (
        *("ceil", "cos", "cosh", "exp", "exp2", "floor", "logical_not", "sign", "sin"),
        *("sinh", "sqrt", "square", "tan", "tanh"),
    )
} | {
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "round": np.round,  # halves to even
    "softsign": lambda x: x / (1 + np.abs(x)),
}


def _binary(x: Any, y: Any, *, by: Callable[[Any, Any], Any]) -> Any:
    return by(x, y)


def _unary(x: Any, *, by: Callable[[Any], Any]) -> Any:
    return by(x)


for _op_type, _two in _BINARY.items():
    evaluates(_op_type)(partial(_binary, by=_two))
for _op_type, _one in _UNARY.items():
    evaluates(_op_type)(partial(_unary, by=_one))
evaluates("maximum", exact=True)(partial(_binary, by=np.maximum))
evaluates("minimum", exact=True)(partial(_binary, by=np.minimum))
evaluates("abs", exact=True)(partial(_unary, by=np.abs))
evaluates("identity", exact=True)(partial(_unary, by=np.asarray))
evaluates("relu", exact=True)(partial(_unary, by=lambda x: np.maximum(x, np.float32(0))))
evaluates("relu6", exact=True)(partial(_unary, by=lambda x: np.clip(x, 0, 6)))


@evaluates("real_div")
def real_div(x: Array, y: Array) -> Any:
    """Integers are divided rounding toward zero, as Core ML does."""
    quotient = np.true_divide(x, y, dtype=np.float32)
    both_integer = all(np.asarray(v).dtype.kind in "iu" for v in (x, y))
    return np.trunc(quotient).astype(np.int32) if both_integer else quotient


@evaluates("inverse")
def inverse(x: Array, epsilon: Array) -> Any:
    return 1 / (x + epsilon)


@evaluates("rsqrt")
def rsqrt(x: Array, epsilon: Array) -> Any:
    return 1 / np.sqrt(x + epsilon)


@evaluates("log")
def log(x: Array, epsilon: Array) -> Any:
    return np.log(x + epsilon)


@evaluates("clip")
def clip(x: Array, alpha: Array, beta: Array) -> Any:
    return np.clip(x, alpha, beta)


@evaluates("threshold")
def threshold(x: Array, alpha: Array) -> Any:
    return np.maximum(x, alpha)


@evaluates("cast")
def cast(x: Array, dtype: str) -> Any:
    """Both float types are held as float32: the rounding is the caller's."""
    to = {"fp16": "float32", "fp32": "float32"}.get(str(dtype), str(dtype))
    x = np.asarray(x)
    return (np.trunc(x) if x.dtype.kind == "f" and "int" in to else x).astype(to, copy=False)


@evaluates("select", exact=True)
def select(cond: Array, a: Array, b: Array) -> Any:
    return np.where(cond, a, b)


# erf(x) = 1 - exp(-x P(x)) for x in 0..4: least squares on Chebyshev nodes, reweighted
# until the largest relative error of erf was 4e-9.
_ERF = (
    *(-9.25597942e-06, 0.000117638534, -0.000632826355),
    *(0.00166700664, -0.000160373209, -0.0191530772),
    *(0.102777831, 0.636619389, 1.12837923),
)


@evaluates("erf")
def erf(x: Array) -> Any:
    """Within 2e-7 of the true value, relatively."""
    size = np.minimum(np.abs(x), np.float32(4))
    exponent = np.full_like(size, _ERF[0])
    for coefficient in _ERF[1:]:
        exponent *= size
        exponent += np.float32(coefficient)
    exponent *= size
    return np.copysign(np.expm1(-exponent), x)


@evaluates("sigmoid")
def sigmoid(x: Array) -> Any:
    return 1 / (1 + np.exp(-x))


@evaluates("silu")
def silu(x: Array) -> Any:
    return x / (1 + np.exp(-x))


_GELU: dict[str, Callable[[Array], Any]] = {
    "EXACT": lambda x: 0.5 * x * (1 + erf(x * np.float32(0.5**0.5))),
    "TANH_APPROXIMATION": lambda x: (
        0.5 * x * (1 + np.tanh(np.float32(0.7978845608) * (x + 0.044715 * (x * x * x))))
    ),
    "SIGMOID_APPROXIMATION": lambda x: x * sigmoid(1.702 * x),
}


@evaluates("gelu")
def gelu(x: Array, mode: str = "EXACT") -> Any:
    return blockwise(_GELU[mode], x)


@evaluates("leaky_relu")
def leaky_relu(x: Array, alpha: Array) -> Any:
    return np.where(x > 0, x, alpha * x)


@evaluates("prelu")
def prelu(x: Array, alpha: Array) -> Any:
    return np.where(x > 0, x, alpha.reshape(-1, *[1] * (x.ndim - 2)) * x)


@evaluates("elu")
def elu(x: Array, alpha: Array) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@evaluates("sigmoid_hard")
def sigmoid_hard(x: Array, alpha: Array, beta: Array) -> Any:
    return np.clip(alpha * x + beta, 0, 1)


@evaluates("linear_activation")
def linear_activation(x: Array, alpha: Array, beta: Array) -> Any:
    return alpha * x + beta


@evaluates("scaled_tanh")
def scaled_tanh(x: Array, alpha: Array, beta: Array) -> Any:
    return alpha * np.tanh(beta * x)


@evaluates("clamped_relu")
def clamped_relu(x: Array, alpha: Array, beta: Array) -> Any:
    return np.minimum(np.where(x >= 0, x, alpha * x), beta)


@evaluates("thresholded_relu")
def thresholded_relu(x: Array, alpha: Array) -> Any:
    return np.where(x >= alpha, x, np.float32(0))


@evaluates("softplus")
def softplus(x: Array) -> Any:
    return np.logaddexp(x, np.float32(0))


@evaluates("softplus_parametric")
def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Any:
    a, b = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (alpha, beta))
    return a * softplus(b * x)
