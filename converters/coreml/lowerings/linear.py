"""Matrix products and attention."""

from __future__ import annotations

from typing import Any

from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var

from ...graph.graph import Node
from ..registry import lower


@lower("Linear")
def linear(node: Node, x: Var, weight: Var, *bias: Var) -> Var:
    return mb.linear(x=x, weight=weight, **({"bias": bias[0]} if bias else {}))


@lower("Matmul")
def matmul(node: Node, x: Var, y: Var, transpose_x: bool, transpose_y: bool) -> Var:
    return mb.matmul(x=x, y=y, transpose_x=transpose_x, transpose_y=transpose_y)


@lower("Softmax")
def softmax(node: Node, x: Var, axis: int) -> Var:
    return mb.softmax(x=x, axis=axis)


@lower("AddMM")
def addmm(node: Node, a: Var, b: Var, c: Var, alpha: float, beta: float) -> Any:
    from .elementwise import scalar

    product = mb.matmul(x=a, y=b)
    if alpha != 1:
        product = mb.mul(x=product, y=scalar(product, alpha))
    return mb.add(x=product, y=c if beta == 1 else mb.mul(x=c, y=scalar(c, beta)))


@lower("Attention")
def attention(node: Node, q: Var, k: Var, v: Var, *mask: Var) -> Var:
    """Core ML's fused op, which scales q by the root of its width itself."""
    seen = {"attn_mask": mask[0]} if mask else {}
    return mb.scaled_dot_product_attention(query=q, key=k, value=v, **seen)
