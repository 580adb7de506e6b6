"""Structural re-parameterization: the same function in fewer operations."""

from __future__ import annotations

import copy
from typing import Any, Protocol, runtime_checkable

import mlx.core as mx
import mlx.nn as nn


@runtime_checkable
class Fusible(Protocol):
    """A layer that can say what computes the same in inference."""

    def fuse(self) -> nn.Module:
        """What replaces this layer; its own children are fused already. Changes nothing.

        A layer that is fused gives itself.
        """


def fuse(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with the same outputs in eval mode and fewer operations.

    Every layer that has a ``fuse`` method is replaced by what it returns, the innermost
    first. Batch norms fold into convolutions, parallel branches into one kernel. ``model``
    keeps working; arrays that did not change are shared, not copied. The new ones are
    computed: any thread may use what it returns, as MLX does not allow of what is to come.
    """
    fused = fuse_lazily(model)
    if not model.training:
        fused.eval()  # layers that are new, too
    mx.eval(fused.parameters())
    return fused


def fuse_lazily(model: nn.Module) -> nn.Module:
    """What ``fuse`` gives, not computed yet: gradients pass through it to ``model``'s own."""
    fused = copy.copy(model)
    for key, child in model.items():
        fused[key] = _fuse_tree(child)
    return fused.fuse() if isinstance(fused, Fusible) else fused


def _fuse_tree(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return fuse_lazily(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_fuse_tree, value))
    if isinstance(value, dict):
        return {k: _fuse_tree(v) for k, v in value.items()}
    return value
