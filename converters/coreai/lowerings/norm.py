"""Normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ...graph.graph import Node
from ..authoring import composite, literal
from ..registry import lower
from ..values import dtype_of, reshaped, shape_of, signed, unsigned


@lower("LayerNorm")
def layer_norm(node: Node, x: Value, *rest: Any) -> Value:
    """As the composite that devices have an operation for, whose statistics are in float32
    without cutting a region in half precision; written out where there is none."""
    *affine, axes, eps = rest
    axes, last = [int(axis) for axis in axes], len(shape_of(x)) - 1
    if len(axes) == 1:
        order = [axis for axis in range(last + 1) if axis not in axes] + axes
        y = _of_last_axis(_moved(x, order), affine, eps)
        return _moved(y, [order.index(axis) for axis in range(last + 1)])
    if axes == list(range(1, last + 1)) and not affine:
        return _of_one_group(x, eps)
    return _affine(_normalized(x, axes, eps), affine, axes)


def _moved(x: Value, order: list[int]) -> Value:
    return x if order == sorted(order) else ca.transpose(x, unsigned(order))


def _of_last_axis(x: Value, affine: Sequence[Value], eps: float) -> Value:
    """Apple's own converter goes over the last axes only, and so do we."""
    last = [len(shape_of(x)) - 1]
    gamma, beta = (*affine, *_nothing(x, shape_of(x)[-1])[len(affine) :])
    return composite(
        "layer_norm",
        {"input": x, "gamma": gamma, "beta": beta},
        shape_of(x),
        lambda x, gamma, beta: [_affine(_normalized(x, last, eps), [gamma, beta], last)],
        axes=last,
        eps=float(eps),
    )


def _of_one_group(x: Value, eps: float) -> Value:
    """Over all but the first axis, as a group norm whose only group has all channels."""
    rest, channels = range(1, len(shape_of(x))), shape_of(x)[1]
    weight, bias = _nothing(x, channels)
    return composite(
        "group_norm",
        {"input": x, "weight": weight, "bias": bias},
        shape_of(x),
        lambda x, weight, bias: [_affine(_normalized(x, rest, eps), [weight, bias], [1])],
        num_groups=1,
        num_channels=channels,
        eps=float(eps),
    )


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
