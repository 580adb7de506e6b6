"""Weights in 2 to 8 bits for the MLX runtime, where MLX can multiply them as they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..errors import ConfigError
from .fuse import fuse

BITS = (2, 3, 4, 6, 8)
GROUPS = (32, 64, 128)


class QuantizedPointwise(nn.Module):
    """A linear layer or 1x1 convolution whose weight stays packed: (..., in) to (..., out).

    A width that the group size does not divide is padded with zeros, input and weight alike.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, bits: int, group_size: int) -> None:
        super().__init__()
        weight = layer.weight.reshape(layer.weight.shape[0], -1)
        self.bits, self.group_size = bits, group_size
        self.in_chs = weight.shape[1]
        self.padding = -self.in_chs % group_size
        self.stride: tuple[int, int] = getattr(layer, "stride", (1, 1))
        padded = mx.pad(weight, [(0, 0), (0, self.padding)])
        self.weight, self.scales, self.biases = mx.quantize(padded, group_size, bits)
        if "bias" in layer:
            self.bias = layer.bias
        self.freeze()

    def __call__(self, x: mx.array) -> mx.array:
        """(..., in) to (..., out); of a convolution (B, H, W, in), strided like it."""
        if self.stride != (1, 1):
            x = x[:, :: self.stride[0], :: self.stride[1]]
        if self.padding:
            x = mx.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.padding)])
        y = mx.quantized_matmul(
            x,
            self.weight,
            self.scales,
            self.biases,
            transpose=True,
            group_size=self.group_size,
            bits=self.bits,
        )
        return y + self.bias if "bias" in self else y


@dataclass(frozen=True)
class Coverage:
    """How much of a model ``quantize`` reached; ``kept`` are the other weights, by path."""

    quantized: int  # weights, counted as they were
    total: int
    bytes: int
    kept: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of all weights, those that are quantized: 0 to 1."""
        return self.quantized / self.total

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of {self.total} weights quantized, {self.bytes / 1e6:.2f} MB; "
            f"{len(self.kept)} arrays kept"
        )


def quantize(model: nn.Module, bits: int = 4, group_size: int = 64) -> nn.Module:
    """A fused copy of ``model`` with quantized linear layers and 1x1 convolutions.

    MLX multiplies them by ``mx.quantized_matmul``; other convolutions it cannot, and they
    stay as they are: see ``coverage``. For a package use ``export(..., recipe=...)``, which
    covers them all. Raises ConfigError for impossible ``bits`` or ``group_size``.
    """
    if bits not in BITS or group_size not in GROUPS:
        raise ConfigError(
            f"MLX has {', '.join(map(str, BITS))} bits in groups of "
            f"{', '.join(map(str, GROUPS))}; given {bits} and {group_size}"
        )
    quantized: nn.Module = _replaced(fuse(model), bits, group_size)
    mx.eval(quantized.parameters())
    return quantized


def coverage(model: nn.Module) -> Coverage:
    """What of a quantized model is quantized."""
    packed = dict(_packed(model))
    quantized = sum(m.weight.shape[0] * m.in_chs for m in packed.values())
    inside = {f"{path}.{name}" for path in packed for name in ("weight", "scales", "biases")}
    arrays: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    kept = {k: v for k, v in arrays.items() if k not in inside and v.ndim > 1}
    total = quantized + sum(v.size for v in kept.values())
    size = sum(v.nbytes for v in arrays.values())
    return Coverage(quantized, total, size, tuple(sorted(kept)))


def _packed(model: nn.Module) -> Iterator[tuple[str, QuantizedPointwise]]:
    for path, module in model.named_modules():
        if isinstance(module, QuantizedPointwise):
            yield path, module


def _replaced(value: Any, bits: int, group_size: int) -> Any:
    """The tree with every layer that can be exchanged; ``value`` itself is not changed."""
    if _is_pointwise(value):
        return QuantizedPointwise(value, bits, group_size)
    if isinstance(value, nn.Module):
        changed = copy.copy(value)
        for key, child in value.items():
            changed[key] = _replaced(child, bits, group_size)
        return changed
    if isinstance(value, list | tuple):
        return type(value)(_replaced(child, bits, group_size) for child in value)
    if isinstance(value, dict):
        return {key: _replaced(child, bits, group_size) for key, child in value.items()}
    return value


def _is_pointwise(layer: Any) -> bool:
    if isinstance(layer, nn.Linear):
        return True
    return (
        isinstance(layer, nn.Conv2d)
        and layer.weight.shape[1:3] == (1, 1)
        and layer.groups == 1
        and layer.padding in (0, (0, 0))
    )
