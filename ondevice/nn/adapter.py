"""Small trainable bottlenecks beside the MLPs of a model whose own weights stay as they are.

Paper: https://arxiv.org/abs/2205.13535 (AdaptFormer)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..cpu import kernels
from ..errors import ConfigError
from .drop_path import DropPath
from .layers import Conv2d

NAME = "adapter"
# Residual layers with an MLP: where it is, and its last layer, which has the map's channels.
MLPS = (("m", "pw2"), ("mlp", "fc2"))


class Adapter(nn.Module):
    """Two 1x1 convolutions with ``rank`` channels between them; zero until it is trained."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.down = Conv2d(dim, rank, 1)
        self.up = Conv2d(rank, dim, 1)
        self.up.weight = mx.zeros_like(self.up.weight)
        self.up.bias = mx.zeros_like(self.up.bias)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.up(kernels.relu(self.down(x)))


def add_adapters(model: nn.Module, rank: int) -> None:
    """Put an adapter beside each residual MLP of ``model``, whose parameters keep their paths.

    Raises ConfigError if it has none.
    """
    layers = list(_layers(model))
    if not layers:
        raise ConfigError(
            f"{type(model).__name__} has no residual MLP to put an adapter beside"
        )
    for layer, dim in layers:
        layer.__class__ = _with_adapter(type(layer))
        layer.adapter = Adapter(dim, rank)


def freeze_base(model: nn.Module) -> None:
    """Only adapters and the head learn."""
    model.freeze()
    for path, layer in model.named_modules():
        if path.rpartition(".")[2] == NAME or path == "head":
            layer.unfreeze()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm):
            layer.freeze(recurse=False, keys=["running_mean", "running_var"])


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """The layers that get an adapter, and the channels of the map that they read and give."""
    for _, layer in model.named_modules():
        for mlp, last in MLPS if isinstance(layer, DropPath) else ():
            inner = layer.get(mlp)
            if isinstance(inner, nn.Module) and last in inner and NAME not in layer:
                convolution = inner[last].get("conv", inner[last])
                yield layer, convolution.weight.shape[0]


@cache
def _with_adapter(kind: Any) -> Any:
    """The class of a layer that adds what its adapter makes of the same input."""

    class Adapted(kind):
        def __call__(self, x: mx.array) -> mx.array:
            return super().__call__(x) + self.adapter(x)

    Adapted.__name__ = f"Adapted{kind.__name__}"
    return Adapted
