"""What lowerings share: a value's type and known contents, and constants for arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ..graph.graph import Array, Shape
from .authoring import instead, value_of as value_of

SMALLEST_HALF = 2.0**-24
_TYPES = {"float32": np.float32, "float16": np.float16, "bool": np.bool_}


def numpy_type(dtype: str) -> Any:
    """The type in a program of what is ``dtype`` in a graph: all integers are int32."""
    return _TYPES.get(dtype, np.int32)


def shape_of(x: Value) -> Shape:
    """The shape of a value or a constant."""
    return tuple(x.type.shape)


def dtype_of(x: Value) -> np.dtype[Any]:
    """NumPy's type of a value or a constant."""
    return x.type.dtype.numpy


def scalar(x: Value, value: float) -> Any:
    """A number of x's type; in half precision what is too small becomes the smallest."""
    dtype = dtype_of(x)
    if dtype == np.float16 and 0 < abs(value) < SMALLEST_HALF:
        value = SMALLEST_HALF if value > 0 else -SMALLEST_HALF
    return np.array(value, dtype)


def unsigned(values: Sequence[int]) -> Array:
    """Integers as the dialect wants sizes and axes."""
    return np.array(values, np.uint32)


def signed(values: Sequence[int]) -> Array:
    """Integers as the dialect wants shapes and positions."""
    return np.array(values, np.int32)


def reshaped(x: Value, shape: Sequence[int]) -> Value:
    """In another shape; a constant is stored in it."""
    if shape_of(x) == tuple(shape):
        return x
    known = value_of(x)
    if known is not None:
        return instead(x, known.reshape(shape))
    return ca.reshape(x, signed(shape))


def turned(x: Value) -> Value:
    """With its last two axes exchanged; a constant is stored so."""
    known = value_of(x)
    if known is not None:
        return instead(x, known.swapaxes(-1, -2))
    rank = len(shape_of(x))
    return ca.transpose(x, unsigned([*range(rank - 2), rank - 1, rank - 2]))


def scaled(x: Value, factor: float) -> Value:
    return ca.broadcasting_mul(x, scalar(x, factor))
