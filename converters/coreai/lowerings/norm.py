"""Normalization."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ...graph.graph import Node
from ..authoring import composite, literal
from ..registry import lower
from ..values import dtype_of, reshaped, shape_of, signed


@lower("LayerNorm")
def layer_norm(node: Node, x: Value, *rest: Any) -> Value:
    """Core AI's composite where it goes over the last axes, as Apple's own converter has it;
    over all but the first, that of a group of all channels; over others, written out."""
    *affine, axes, eps = rest
    axes, shape = [int(axis) for axis in axes], shape_of(x)
    normalize = partial(_normalized, axes=axes, eps=eps)
    if axes == [len(shape) - 1]:
        gamma, beta = affine or _nothing(x, shape[-1])
        return composite(
            "layer_norm",
            {"input": x, "gamma": gamma, "beta": beta},
            shape,
            lambda x, g, b: [_affine(normalize(x), [g, b], axes)],
            axes=axes,
            eps=float(eps),
        )
    if axes == list(range(1, len(shape))) and not affine:
        weight, bias = _nothing(x, shape[1])
        return composite(
            "group_norm",
            {"input": x, "weight": weight, "bias": bias},
            shape,
            lambda x, w, b: [_affine(normalize(x), [w, b], [1])],
            num_groups=1,
            num_channels=shape[1],
            eps=float(eps),
        )
    return _affine(normalize(x), affine, axes)


def _nothing(x: Value, count: int) -> tuple[Value, Value]:
    """A scale and a shift that change nothing."""
    return literal(np.ones(count, dtype_of(x))), literal(np.zeros(count, dtype_of(x)))


def _normalized(x: Value, axes: Sequence[int], eps: float) -> Value:
    """Statistics in float32: the squares of half precision would overflow."""
    wide = ca.cast(x, np.float32) if dtype_of(x) == np.float16 else x
    centered = ca.broadcasting_sub(wide, ca.reduce_mean(wide, signed(axes)))
    variance = ca.reduce_mean(ca.broadcasting_mul(centered, centered), signed(axes))
    root = ca.rsqrt(ca.broadcasting_add(variance, np.float32(eps)))
    y = ca.broadcasting_mul(centered, root)
    return y if wide is x else ca.cast(y, dtype_of(x).type)


def _affine(y: Value, vectors: Sequence[Value], axes: Sequence[int]) -> Value:
    """Times the first vector, plus the second, along ``axes``."""
    wide = [n if axis in axes else 1 for axis, n in enumerate(shape_of(y))]
    for call, vector in zip((ca.broadcasting_mul, ca.broadcasting_add), vectors, strict=False):
        y = call(y, reshaped(vector, wide))
    return y
