"""Matrix products and attention."""

from __future__ import annotations

import math

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ...graph.graph import Node
from ..authoring import composite
from ..registry import lower
from ..values import dtype_of, reshaped, scaled, shape_of, turned, unsigned

_NOTHING = {np.dtype(np.float16): -4e4, np.dtype(np.float32): -1e30}  # added, hides a position


@lower("Linear")
def linear(node: Node, x: Value, weight: Value, *bias: Value) -> Value:
    """Of one row, as a head reads, a convolution: Apple's runtime for CPUs adds a convolution
    up in float32, and rounds each term and sum of a matrix product to half precision."""
    is_row = math.prod(shape_of(x)[:-1]) == 1
    y = _of_row(node, x, weight) if is_row else _product(x, turned(weight))
    return ca.broadcasting_add(y, bias[0]) if bias else y


def _of_row(node: Node, x: Value, weight: Value) -> Value:
    outputs, inputs = shape_of(weight)
    once = unsigned([1, 1])
    pixel, kernel = (
        reshaped(value, (n, inputs, 1, 1)) for value, n in ((x, 1), (weight, outputs))
    )
    return reshaped(ca.conv2d(pixel, kernel, once, once, np.uint32(1)), node.output.shape)


@lower("Matmul")
def matmul(
    node: Node, x: Value, y: Value, transpose_x: bool = False, transpose_y: bool = False
) -> Value:
    return _product(turned(x) if transpose_x else x, turned(y) if transpose_y else y)


def _product(x: Value, y: Value) -> Value:
    """Of a matrix that is a reshape, as a batch of one: coreai-core multiplies before such a
    reshape, does without it where the product is added to something, and ends the process."""
    is_reshape = x.defining_op is not None and x.defining_op.name == "coreai.reshape"
    if not is_reshape or len(shape_of(x)) != 2 or len(shape_of(y)) != 2:
        return ca.broadcasting_batch_matmul(x, y)
    batch = ca.broadcasting_batch_matmul(reshaped(x, (1, *shape_of(x))), y)
    return reshaped(batch, shape_of(batch)[1:])


@lower("Softmax")
def softmax(node: Node, x: Value, axis: int = -1) -> Value:
    return ca.softmax(x, np.int32(axis))


@lower("AddMM")
def addmm(node: Node, a: Value, b: Value, c: Value, alpha: float, beta: float) -> Value:
    product = _product(a, b)
    product = product if alpha == 1 else scaled(product, alpha)
    return ca.broadcasting_add(product, c if beta == 1 else scaled(c, beta))


@lower("Attention")
def attention(node: Node, q: Value, k: Value, v: Value, *mask: Value) -> Value:
    """The composite that devices have an operation for; it takes four axes."""
    rank = len(shape_of(q))
    inputs = {"query": q, "key": k, "value": v}
    if mask:
        inputs["attn_mask"] = _added(mask[0], q)
    if rank < 4:
        inputs = {
            name: reshaped(x, (1,) * (4 - len(shape_of(x))) + shape_of(x))
            for name, x in inputs.items()
        }
    scale = float(shape_of(q)[-1]) ** -0.5
    made = composite(
        "scaled_dot_product_attention",
        inputs,
        (*shape_of(inputs["query"])[:-1], shape_of(v)[-1]),
        _attention,
        is_causal=False,
        scale=scale,
        window_size=0,
    )
    return reshaped(made, node.output.shape)


def _added(mask: Value, q: Value) -> Value:
    """A mask as what is added to the scores: nothing where it lets see."""
    if dtype_of(mask) != np.bool_:
        return mask
    kind = dtype_of(q)
    zero, hidden = np.array(0, kind), np.array(_NOTHING[kind], kind)
    return ca.broadcasting_where(mask, zero, hidden)


def _attention(q: Value, k: Value, v: Value, *mask: Value) -> list[Value]:
    scores = ca.broadcasting_batch_matmul(scaled(q, shape_of(q)[-1] ** -0.5), turned(k))
    for added in mask:
        scores = ca.broadcasting_add(scores, added)
    return [ca.broadcasting_batch_matmul(ca.softmax(scores, np.int32(-1)), v)]
