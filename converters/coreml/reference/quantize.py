"""Eight-bit activations, and class labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from .registry import Array, evaluates


def _along(values: Any, axis: Any, rank: int) -> Any:
    """A scalar, or a vector laid along one axis."""
    values = np.asarray(values)
    if values.ndim == 0:
        return values
    shape = [1] * rank
    shape[int(axis)] = -1
    return values.reshape(shape)


@evaluates("quantize")
def quantize(
    input: Array, scale: Any, output_dtype: str, zero_point: Any = None, axis: Any = None
) -> Array:
    """Halves go to even; values outside the range to its ends."""
    codes = np.rint(input / _along(scale, axis, input.ndim))
    if zero_point is not None:
        codes = codes + _along(zero_point, axis, input.ndim).astype(np.float32)
    limits = np.iinfo(str(output_dtype))
    return np.clip(codes, limits.min, limits.max).astype(limits.dtype)


@evaluates("dequantize")
def dequantize(input: Array, scale: Any, zero_point: Any = None, axis: Any = None) -> Any:
    values = input.astype(np.float32)
    if zero_point is not None:
        values = values - _along(zero_point, axis, input.ndim).astype(np.float32)
    return values * _along(scale, axis, input.ndim)


@evaluates("classify")
def classify(probabilities: Array, classes: list[Any]) -> tuple[Any, dict[Any, float]]:
    scores = dict(zip(classes, probabilities.ravel().tolist(), strict=True))
    return classes[int(np.argmax(probabilities))], scores
