"""Convolutions, pools and resizing: channels first, padding and bias as operations.

Core AI's convolutions go over two or three axes and neither pad nor add; along one axis they
are done with a second axis of length one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import TensorType, Value

from ...graph.graph import Node
from ..authoring import literal
from ..registry import lower
from ..values import dtype_of, reshaped, scalar, scaled, shape_of, signed, unsigned

Ints = Sequence[int]


def padded(x: Value, low: Ints, high: Ints, value: float = 0.0) -> Value:
    """With ``value`` around the last axes of x, as many as ``low`` has."""
    if not any((*low, *high)):
        return x
    around = [0, 0] * (len(shape_of(x)) - len(low))
    around += [n for pair in zip(low, high, strict=True) for n in pair]
    return ca.pad(x, unsigned(around), scalar(x, value), "constant")


def _biased(y: Value, bias: Sequence[Value]) -> Value:
    if not bias:
        return y
    wide = (1, *shape_of(bias[0]), *[1] * (len(shape_of(y)) - 2))
    return ca.broadcasting_add(y, reshaped(bias[0], wide))


def _two_axes(x: Value) -> Value:
    """(B, C, L) as (B, C, L, 1); with more axes itself."""
    shape = shape_of(x)
    return reshaped(x, (*shape, 1)) if len(shape) == 3 else x


def _longer(values: Ints, fill: int) -> list[int]:
    return [*values, fill] if len(values) == 1 else [*values]


@lower("Conv")
def conv(node: Node, x: Value, weight: Value, *rest: Any) -> Value:
    *bias, stride, low, high, dilation, groups = rest
    call = ca.conv3d if len(stride) == 3 else ca.conv2d
    y = call(
        _two_axes(padded(x, low, high)),
        _two_axes(weight),
        unsigned(_longer(stride, 1)),
        unsigned(_longer(dilation, 1)),
        np.uint32(groups),
    )
    return _biased(reshaped(y, node.output.shape), bias)


@lower("ConvTranspose")
def conv_transpose(node: Node, x: Value, weight: Value, *rest: Any) -> Value:
    """What is cut off alike on both sides is Core AI's padding; the rest is cut off after."""
    *bias, stride, low, high, dilation, groups = rest
    call = ca.conv_transpose3d if len(stride) == 3 else ca.conv_transpose2d
    both = [max(0, min(pair)) for pair in zip(low, high, strict=True)]
    y = call(
        _two_axes(x),
        _two_axes(weight),
        literal(unsigned(_longer(stride, 1))),
        literal(unsigned(_longer(both, 0))),
        literal(unsigned(_longer(dilation, 1))),
        literal(unsigned(_longer([0] * len(stride), 0))),
        literal(np.array(groups, np.uint32)),
    )
    y = reshaped(y, shape_of(y)[: len(node.output.shape)])
    rest_of = ([n - b for n, b in zip(side, both, strict=True)] for side in (low, high))
    return _biased(_cropped(y, *rest_of), bias)


def _cropped(y: Value, low: Ints, high: Ints) -> Value:
    """Without ``low`` and ``high`` of its last axes; where they are negative, with zeros."""
    shape = shape_of(y)
    first = len(shape) - len(low)
    begin = [0] * first + [max(n, 0) for n in low]
    end = [*shape[:first], *(s - max(n, 0) for s, n in zip(shape[first:], high, strict=True))]
    if begin != [0] * len(shape) or tuple(end) != shape:
        y = ca.slice_(y, signed(begin), signed(end), signed([1] * len(shape)))
    return padded(y, [max(-n, 0) for n in low], [max(-n, 0) for n in high])


@lower("Pool")
def pool(
    node: Node, x: Value, kind: str, kernel: Ints, stride: Ints, low: Ints, high: Ints
) -> Value:
    """A mean is a sum of parts, so that half precision does not overflow on the way."""
    one = literal(unsigned([1] * len(kernel)))
    if kind == "max":
        least = float(np.finfo(dtype_of(x)).min)
        made = TensorType(node.output.shape, dtype_of(x).type)
        inside = padded(x, low, high, least)
        return ca.maxpool2d(
            made, inside, unsigned(kernel), unsigned(stride), one, np.bool_(False)
        )
    x = scaled(x, 1 / float(np.prod(kernel))) if kind == "mean" else x
    return ca.sumpool2d(padded(x, low, high), unsigned(kernel), unsigned(stride), one)
