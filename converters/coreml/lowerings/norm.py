"""Normalization."""

from __future__ import annotations

from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var

from ...graph.graph import Node
from ..registry import lower
from .elementwise import scalar


@lower("LayerNorm")
def layer_norm(node: Node, x: Var, *rest: object) -> Var:
    *affine, axes, eps = rest
    named = dict(zip(("gamma", "beta"), affine, strict=False))
    assert isinstance(eps, float)
    return mb.layer_norm(x=x, axes=list(axes), epsilon=scalar(x, eps), **named)  # type: ignore[call-overload]
