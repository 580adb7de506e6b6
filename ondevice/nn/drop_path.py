"""Drop path: in training, a random image passes by a residual branch as if it were not there.

Paper: https://arxiv.org/abs/1603.09382 (stochastic depth)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn


class DropPath(nn.Module):
    """Abstract: a layer with a residual branch, which ``dropped`` leaves out at random."""

    drop_rate = 0.0  # the share of images, set by ``set_drop_path``

    def dropped(self, branch: mx.array) -> mx.array:
        """(B, ...) branch to the same shape, zero for the images that pass by it."""
        if not (self.training and self.drop_rate):
            return branch
        keep = 1 - self.drop_rate
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        return branch * (mx.random.bernoulli(keep, shape).astype(branch.dtype) / keep)


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Rates from 0 at the first residual branch of ``model`` to ``rate`` at the last."""
    layers = [layer for layer in _in_order(model) if isinstance(layer, DropPath)]
    for i, layer in enumerate(layers):
        layer.drop_rate = rate * i / max(len(layers) - 1, 1)


def _in_order(value: Any) -> Iterator[nn.Module]:
    """The layers within ``value`` in the order in which they were made."""
    if isinstance(value, nn.Module):
        yield value
    children = value.values() if isinstance(value, dict) else value
    for child in children if isinstance(value, dict | list | tuple) else ():
        yield from _in_order(child)
