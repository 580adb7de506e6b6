"""Which MIL operations can be evaluated: one NumPy function each.

A function's parameters are the operation's inputs, by MIL's names: its signature is the
schema, checked when a program is compiled. Tensors of either float type arrive as float32
arrays, constants as what coremltools stores: NumPy scalars and arrays, ``str``, ``bool``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kernel = Callable[..., Any]
K = TypeVar("K", bound=Kernel)


class Evaluator(NamedTuple):
    """``exact`` functions return only values they were given: nothing to round."""

    run: Kernel
    exact: bool = False


CACHED = 1 << 14  # values that stay in the processor's cache while several passes go over them
EVALUATORS: dict[str, Evaluator] = {}


def evaluates(*op_types: str, exact: bool = False) -> Callable[[K], K]:
    """Register a function as what ``op_types`` compute."""

    def register(function: K) -> K:
        EVALUATORS.update(dict.fromkeys(op_types, Evaluator(function, exact)))
        return function

    return register


def ints(values: Any) -> tuple[int, ...]:
    """A constant argument, be it one integer or several."""
    found: list[int] = np.atleast_1d(values).tolist()
    return tuple(found)


def positive(axes: Any, rank: int) -> tuple[int, ...]:
    """Axes counted from the first, whichever end they were counted from."""
    return tuple(a % rank for a in ints(axes))


def blockwise(function: Callable[[Array], Array], x: Array) -> Array:
    """An elementwise function of many passes, in blocks that stay in the cache."""
    if x.size <= CACHED:
        return function(x)
    flat = np.ascontiguousarray(x).reshape(-1)
    y = np.empty_like(flat)
    for start in range(0, flat.size, CACHED):
        y[start : start + CACHED] = function(flat[start : start + CACHED])
    return y.reshape(x.shape)
