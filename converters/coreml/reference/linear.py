"""Matrix products."""

from __future__ import annotations

import numpy as np

from .reduce import softmax
from .registry import Array, evaluates


@evaluates("linear")
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y: Array = x @ weight.T
    return y if bias is None else y + bias


@evaluates("matmul")
def matmul(x: Array, y: Array, transpose_x: bool = False, transpose_y: bool = False) -> Array:
    # A vector is a matrix of one row whatever the flags, and its unit axis goes again.
    a = np.swapaxes(x, -1, -2) if transpose_x and x.ndim > 1 else x
    b = np.swapaxes(y, -1, -2) if transpose_y and y.ndim > 1 else y
    product: Array = np.matmul(a, b)
    return product


@evaluates("einsum")
def einsum(values: tuple[Array, ...], equation: str) -> Array:
    result: Array = np.einsum(equation, *values, optimize=True)
    return result


@evaluates("scaled_dot_product_attention")
def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None
) -> Array:
    scores = query @ np.swapaxes(key, -1, -2) * np.float32(query.shape[-1] ** -0.5)
    if attn_mask is not None and attn_mask.dtype == bool:
        scores = np.where(attn_mask, scores, np.float32(-np.inf))
    elif attn_mask is not None:
        scores = scores + attn_mask
    attention: Array = softmax(scores) @ value
    return attention
