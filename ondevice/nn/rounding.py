"""A model that computes with rounded values and learns as if they were not rounded.

Papers: https://arxiv.org/abs/1308.3432 (straight-through gradients),
https://arxiv.org/abs/1712.05877 (training with the rounding of inference)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from .fuse import fuse_lazily

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Errors = Mapping[str, mx.array]  # rounded less exact weights, by the path in the fused model


class Rounding(Protocol):
    """How an exporter will round: ``converters.rounding`` makes one of a recipe."""

    @property
    def name(self) -> str:
        """What the recipe is called."""

    @property
    def ranges(self) -> Mapping[str, tuple[float, int]]:
        """Scale and zero point of the 8-bit input of each layer, by its weight's path."""

    def prepare(self, model: nn.Module, images: Sequence[Array]) -> dict[str, Any]:
        """The recipe with all that depends on the model, as JSON; ``begin`` takes it.

        ``images`` are (size, size, 3) uint8 pixel values.
        """

    def begin(self, recipe: Mapping[str, Any]) -> None:
        """Round by this recipe from now on."""

    def start(self, model: nn.Module, images: Sequence[Array]) -> Mapping[str, Array]:
        """Values of the fused model's parameters from which to train; nothing if unknown."""

    def weights(self, given: Mapping[str, Array], *, fresh: bool) -> Mapping[str, Array]:
        """Of the fused model's parameters those that are rounded, as they then are.

        Unless ``fresh``, tables of values may be those of the call before.
        """


def rounding_errors(model: nn.Module, rounding: Rounding, *, fresh: bool) -> Errors:
    """What rounding adds to each weight of the fused ``model``."""
    import numpy as np

    fused: dict[str, mx.array] = dict(tree_flatten(fuse_lazily(model).parameters()))
    mx.eval(fused)
    exact = {path: np.array(value) for path, value in fused.items() if value.ndim > 1}
    rounded = rounding.weights(exact, fresh=fresh)
    return {path: mx.array(value - exact[path]) for path, value in rounded.items()}


def rounded_model(
    model: nn.Module, errors: Errors, ranges: Mapping[str, tuple[float, int]]
) -> nn.Module:
    """The fused ``model`` with rounded weights and inputs; gradients reach ``model``'s own.

    Batch norms are fused by the statistics they have learned, which then stay as they are.
    """
    fused = fuse_lazily(model)
    exact: dict[str, mx.array] = dict(tree_flatten(fused.parameters()))
    fused.update(tree_unflatten([(path, exact[path] + e) for path, e in errors.items()]))
    return _with_ranges(fused, ranges, "")


def move_to(model: nn.Module, wanted: Mapping[str, Array]) -> None:
    """Change convolutions, linear layers and their biases so that the fused ``model`` has the
    ``wanted`` parameters, as far as it can."""
    own: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    weights = {k: mx.array(v) for k, v in wanted.items() if v.ndim > 1}
    _move(model, [k for k, v in own.items() if v.ndim > 1], weights)
    biases = {k: mx.array(v) for k, v in wanted.items() if v.ndim == 1}
    places = [k.removesuffix("bias") for k in biases]
    made_of = [
        f"{place}{kind}" for place in places for kind in ("bn.bias", "linear.bias", "bias")
    ]
    _move(model, [k for k in made_of if k in own], biases)


def _move(model: nn.Module, names: Sequence[str], wanted: Mapping[str, mx.array]) -> None:
    """The least change of the parameters ``names``, on each of which no two of the fused values
    depend: of a linear map J it is Jᵀ (J Jᵀ)⁻¹ times what is missing, and J Jᵀ is diagonal."""
    parameters = dict(tree_flatten(model.parameters()))
    start = [parameters[name] for name in names]

    def fused(*values: mx.array) -> list[mx.array]:
        model.update(tree_unflatten(list(zip(names, values, strict=True))))
        found = dict(tree_flatten(fuse_lazily(model).parameters()))
        return [found[path] for path in wanted]

    if not start or not wanted:
        return
    now, rows = mx.vjp(fused, start, [mx.ones_like(v) for v in wanted.values()])
    _, squares = mx.jvp(fused, start, rows)
    gaps = [
        mx.where(square > 0, (value - known) / mx.maximum(square, 1e-12), 0.0)
        for value, known, square in zip(wanted.values(), now, squares, strict=True)
    ]
    _, steps = mx.vjp(fused, start, gaps)
    moved = [value + step for value, step in zip(start, steps, strict=True)]
    mx.eval(moved)
    model.update(tree_unflatten(list(zip(names, moved, strict=True))))


def _with_ranges(value: Any, ranges: Mapping[str, tuple[float, int]], path: str) -> Any:
    """The same tree, changed: layers whose weights have a range read rounded inputs."""
    if isinstance(value, nn.Module | dict):
        for key, child in value.items():
            value[key] = _with_ranges(child, ranges, f"{path}{key}.")
    elif isinstance(value, list):
        value[:] = [_with_ranges(v, ranges, f"{path}{i}.") for i, v in enumerate(value)]
    given = ranges.get(f"{path}weight") if isinstance(value, nn.Module) else None
    return RoundedInput(value, *given) if given else value


class RoundedInput(nn.Module):
    """A layer that reads ``round(x / scale) + zero_point`` in int8; outside of its range x has
    no gradient."""

    def __init__(self, layer: nn.Module, scale: float, zero_point: int) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale
        self.ends = (-128 - zero_point) * scale, (127 - zero_point) * scale

    def __call__(self, x: mx.array) -> mx.array:
        """What the layer takes, to what it gives."""
        inside = mx.clip(x, *self.ends)
        rounded = mx.round(inside / self.scale) * self.scale
        return self.layer(inside + mx.stop_gradient(rounded - inside))
