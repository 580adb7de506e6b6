"""Arrays by name into a model: whose names they are, whose layout, and what does not fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ..config import ModelInfo
from ..config.labels import check_labels
from ..errors import ConfigError, WeightsError, printable
from ..nn.adapter import add_adapters
from ..registry import ModelSpec, model_spec
from .hub import mention_license
from .mlx_quantized import unpack
from .prefixes import Arrays, Fit, best_fit, is_ignored, split_stacked, unwrap
from .safetensors import read_safetensors

_log = logging.getLogger(__name__)
LISTED = 12  # arrays of a kind, of those that do not fit

Weights = str | Path | Mapping[str, mx.array]

# Axes of a torch weight in the order MLX wants them, by the layer that receives it.
_LAYOUTS: dict[type[nn.Module], tuple[int, ...]] = {
    nn.Conv1d: (0, 2, 1),
    nn.Conv2d: (0, 2, 3, 1),
    nn.ConvTranspose2d: (1, 2, 3, 0),
}


def say_license(spec: ModelSpec, tag: str, license: str) -> None:
    """Say it once of a model, not of each of its parts."""
    name = spec.part_of or spec.name
    mention_license(f"{name}.{tag}" if tag else name, license)


def load_as(
    info: ModelInfo, weights: Weights, *, dtype: mx.Dtype = mx.float32, new_head: bool = False
) -> nn.Module:
    """The model that ``info`` describes with ``weights``, as ``create_model`` takes them.

    Wrappers' prefixes, and others that all of the model's arrays have, are taken off. With
    ``new_head`` a classifier of other classes than the weights have keeps its random head,
    which is said. Raises ConfigError or WeightsError with all problems.
    """
    spec = model_spec(info.model)
    say_license(spec, info.tag, info.license)
    origin, metadata = "the given weights", dict[str, str]()
    if isinstance(weights, str | Path):
        origin = str(weights)
        weights, metadata = read_safetensors(weights)
    else:
        weights = _arrays(weights)
    found = best_fit(unwrap(weights), lambda own, others: _fit(spec, info, own, others, dtype))
    layout = metadata.get("format") == "mlx"
    own = _own_head(found.model, found.named) if new_head else {}
    named = {**found.named, **own}
    load_weights(found.model, named, mlx_layout=layout, origin=origin)
    return found.model


def _own_head(model: nn.Module, named: Arrays) -> Arrays:
    """The model's own arrays for those of its classifier that are of other classes."""
    own: Arrays = dict(tree_flatten(model.parameters()))
    other = [k for k, v in named.items() if k.startswith("head.") and v.ndim <= 2]
    found = {k: own[k] for k in other if k in own and own[k].shape != named[k].shape}
    if found:
        classes = model.info.config.num_classes
        _log.warning("%s: its head is new, of %d classes; train it", model.info.name, classes)
    return found


def _arrays(weights: Any) -> dict[str, mx.array]:
    """Weights by name, of a dict of MLX's or NumPy's arrays, which may be one of dicts, as
    ``model.parameters()`` is. Raises ConfigError for anything else."""
    flat = dict(tree_flatten(weights)) if isinstance(weights, Mapping) else {"": weights}
    if bad := {k: v for k, v in flat.items() if not isinstance(v, mx.array | np.ndarray)}:
        name, value = next(iter(bad.items()))
        inside = f", in it {printable(str(name))} as {type(value).__name__}" if name else ""
        raise ConfigError(
            "weights are a path or a dict of arrays by name, such as model.parameters(); given "
            f"{type(weights).__name__}{inside}"
        )
    return {k: mx.array(v) if isinstance(v, np.ndarray) else v for k, v in flat.items()}


def _fit(
    spec: ModelSpec, info: ModelInfo, weights: Arrays, others: Arrays, dtype: mx.Dtype
) -> Fit[nn.Module]:
    """What ``weights`` are to a model; what its head lacks may lie among ``others``."""
    named = rename(weights, spec)
    if not info.config.num_classes:  # a backbone out of a classifier's file
        named = {k: v for k, v in named.items() if not k.startswith("head.")}
    adapted = spec.adapt({k: tuple(v.shape) for k, v in named.items()})
    model = build(spec, replace(info, config=replace(info.config, **adapted)), dtype)
    wanted = dict(tree_flatten(model.parameters())).keys()
    head, beside = _head_beside(others, wanted - named.keys(), spec)
    named |= head
    return Fit(
        model=model,
        named=named,
        missing=frozenset(wanted - named.keys()),
        unexpected=frozenset(named.keys() - wanted),
        beside=beside,
    )


def _head_beside(
    others: Arrays, lost: Set[str], spec: ModelSpec
) -> tuple[dict[str, mx.array], frozenset[str]]:
    """The head that was trained beside a backbone, if it is what the model lacks."""
    given = {k: v for k, v in others.items() if lost and k.startswith("head.")}
    head = rename(given, spec)
    if not lost or not lost <= head.keys():
        return {}, frozenset()
    return {k: head[k] for k in lost}, frozenset(given)


def check_dtype(dtype: Any) -> None:
    """Raises ConfigError for a type that cannot hold weights: integers would cut them off."""
    if not isinstance(dtype, mx.Dtype) or not mx.issubdtype(dtype, mx.floating):
        raise ConfigError(f"dtype is a float type of MLX, such as mx.float16; given {dtype!r}")


def build(spec: ModelSpec, info: ModelInfo, dtype: mx.Dtype) -> nn.Module:
    """The model that ``info`` describes, with random weights. Raises ConfigError."""
    check_dtype(dtype)
    try:
        model = spec.build(info.config)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise ConfigError(f"{info.name} cannot be built as configured: {error}") from error
    if info.adapter:
        add_adapters(model, info.adapter)
    model.set_dtype(dtype)
    model.eval()
    check_labels(info.labels, info.config.num_classes, info.name)
    model.info = info
    return model


def rename(weights: Mapping[str, mx.array], spec: ModelSpec) -> dict[str, mx.array]:
    """Upstream keys in the model's names, what is of no use here dropped."""
    prefix = re.compile(spec.key_prefix or "(?!)")  # without one, nothing matches
    inside = {prefix.sub("", k, 1): v for k, v in weights.items() if prefix.match(k)}
    named: dict[str, mx.array] = {}
    copies = re.compile(spec.copies or "(?!)")
    given = split_stacked(inside or weights, spec.splits)
    for key, array in sorted(given.items(), key=lambda item: bool(copies.match(item[0]))):
        is_copy = copies.match(key)
        if is_ignored(key) or (spec.unused and re.search(spec.unused, key)):
            continue
        if spec.transposes and re.search(spec.transposes, key):
            array = array.T
        for pattern, ours in spec.renames:
            key = re.sub(pattern, ours, key)
        if key in named and is_copy:
            continue
        if key in named:
            raise WeightsError(f"two of the given weights are {spec.name}'s {printable(key)}")
        named[key] = array
    return named


def load_weights(
    model: nn.Module,
    weights: Mapping[str, mx.array],
    *,
    mlx_layout: bool = False,
    origin: str = "the given weights",
) -> None:
    """Put ``weights`` into ``model``, all of them or none, as the type its parameters have.

    Convolution kernels are given as torch stores them (output, input, height, width), or as
    MLX does, which their shapes tell; ``mlx_layout`` says so where none does. What MLX
    quantized is unpacked for a layer that is not.
    Raises WeightsError that lists every missing, unexpected, misshapen or non-finite array.
    """
    wanted: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    layers = dict(model.named_modules())
    weights = unpack(weights, layers)
    problems = listed("missing", wanted.keys() - weights.keys())
    problems += listed("unexpected", weights.keys() - wanted.keys())
    mlx_layout = mlx_layout or _has_mlx_shapes(weights, wanted, layers)
    given: dict[str, mx.array] = {}
    fitted: dict[str, mx.array] = {}
    for key in sorted(wanted.keys() & weights.keys()):
        array = weights[key]
        if not mlx_layout:
            array = _to_mlx(array, layers[key.rpartition(".")[0]], key)
        if _core(array.shape) == _core(wanted[key].shape):
            array = array.reshape(wanted[key].shape)
        given[key], fitted[key] = array, mx.contiguous(array.astype(wanted[key].dtype))
    misfits = misfits_of(given, fitted, wanted)
    more = [f"and {len(misfits) - LISTED} more"] if len(misfits) > LISTED else []
    problems += [*misfits[:LISTED], *more]
    if problems:
        raise WeightsError(f"{name_of(model)} cannot take {origin}: {'; '.join(problems)}")
    model.load_weights(list(fitted.items()))


def misfits_of(
    given: Mapping[str, mx.array],
    fitted: Mapping[str, mx.array],
    wanted: Mapping[str, mx.array],
) -> list[str]:
    """What is wrong with arrays for ``wanted``, ``fitted`` to their types."""
    problems = {}
    for key, array in given.items():
        if array.shape != wanted[key].shape:
            problems[key] = f"has shape {array.shape}, expected {wanted[key].shape}"
        elif not mx.issubdtype(array.dtype, mx.floating):
            problems[key] = f"has type {array.dtype}, expected floating point"
    infinite = _not_finite({k: a for k, a in fitted.items() if k not in problems})
    unusable = _not_finite({k: given[k] for k in infinite})
    for key in sorted(infinite):
        large = f"has values too large for {fitted[key].dtype}"
        problems[key] = "has NaN or infinite values" if key in unusable else large
    variances = {k: a for k, a in given.items() if k.endswith("running_var")}
    for key in sorted(variances.keys() - problems.keys()):
        if mx.any(variances[key] < 0).item():
            problems[key] = "has negative values, which are no variances"
    return [f"{key} {problem}" for key, problem in problems.items()]


def _not_finite(arrays: Mapping[str, mx.array]) -> set[str]:
    """The names of those with NaN or infinite values, from one evaluation of all."""
    # A finite number less itself is 0, any other NaN: a third of the operations of isfinite.
    zeros = {key: (array - array).sum() for key, array in arrays.items()}
    mx.eval(zeros)
    return {key for key, zero in zeros.items() if zero.item() != 0}


def _has_mlx_shapes(
    weights: Mapping[str, mx.array],
    wanted: Mapping[str, mx.array],
    layers: Mapping[str, nn.Module],
) -> bool:
    """Whether every kernel whose shape tells MLX's layout from torch's has MLX's.

    One of 3 x 3 pixels and 3 channels tells nothing, and would be turned without a word.
    """
    shapes = {k: wanted[k].shape for k in wanted.keys() & weights.keys()}
    axes = {k: _axes(layers[k.rpartition(".")[0]], k, len(s)) for k, s in shapes.items()}
    telling = [
        k for k, order in axes.items() if order and _in_torch(shapes[k], order) != shapes[k]
    ]
    return bool(telling) and all(weights[k].shape == shapes[k] for k in telling)


def _in_torch(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that torch has of a kernel of MLX's ``shape``."""
    return tuple(shape[axes.index(i)] for i in range(len(shape)))


def _axes(layer: nn.Module, key: str, ndim: int) -> tuple[int, ...] | None:
    """Those of torch's weight ``key`` in MLX's order, if it is a kernel of ``layer``."""
    axes = next((axes for kind, axes in _LAYOUTS.items() if isinstance(layer, kind)), None)
    return axes if axes and key.endswith("weight") and ndim == len(axes) else None


def _to_mlx(array: mx.array, layer: nn.Module, key: str) -> mx.array:
    axes = _axes(layer, key, array.ndim)
    return array.transpose(axes) if axes else array


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its ones: (C, 1, 1) and (C,) are the same vector."""
    return tuple(n for n in shape if n != 1)


def listed(what: str, keys: Any) -> list[str]:
    """How many arrays are ``what``, and the first of them; nothing if there are none."""
    shown = [printable(key) for key in sorted(keys)]
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return [f"{what} {len(shown)}: {', '.join(shown[:LISTED])}{more}"] if shown else []


def name_of(model: nn.Module) -> str:
    """What a model is called: of one that is not ours, its class."""
    info = getattr(model, "info", None)
    return info.name if info else type(model).__name__
