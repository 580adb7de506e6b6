"""Models with their weights: created by name, read from and written to folders.

A saved model is a folder of ``config.json`` (a ``ModelInfo``) and ``model.safetensors``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .config import ModelConfig, ModelInfo, Preprocess
from .errors import ConfigError, UnknownModelError, WeightsError
from .output import replacing
from .registry import ModelSpec, model_spec
from .safetensors import read_safetensors

SHIPPED = Path(__file__).parent / "checkpoints"

# Buffers that torch saves and inference does not need.
_IGNORED = re.compile(r"(num_batches_tracked|attention_bias_idxs)$")

# Axes of a torch weight in the order MLX wants them, by the layer that receives it.
_LAYOUTS: dict[type[nn.Module], tuple[int, ...]] = {
    nn.Conv1d: (0, 2, 1),
    nn.Conv2d: (0, 2, 3, 1),
    nn.ConvTranspose2d: (1, 2, 3, 0),
}


def create_model(
    name: str,
    *,
    weights: str | Path | Mapping[str, mx.array] | None = None,
    pretrained: bool = False,
    revision: str | None = None,
    **overrides: Any,
) -> nn.Module:
    """Build a model in eval mode; ``model.info`` says what it is.

    ``name`` is a registered name, ``name.tag`` or a saved folder. A tag or ``pretrained``
    loads published weights (from the package or the Hugging Face hub), ``weights`` a
    ``.safetensors`` file, a saved folder or a dict of arrays in timm's or our own names;
    otherwise they are random. ``overrides`` replace config fields such as ``num_classes``.

    Raises UnknownModelError, ConfigError, WeightsError, HubError.
    """
    if is_folder(name):
        return load_model(name)
    spec, tag = model_spec(name), name.partition(".")[2]
    if weights is None and (tag or pretrained):
        return _load_published(spec, tag, revision, overrides)
    if weights is not None and not isinstance(weights, Mapping) and Path(weights).is_dir():
        return load_model(weights)
    info = spec.info(tag, **overrides)
    if weights is None:
        return _build(spec, info)
    if isinstance(weights, Mapping):
        return _build_with(spec, info, weights, mlx_layout=False, origin="the given weights")
    return _build_from_file(spec, info, Path(weights))


def load_model(folder: str | Path) -> nn.Module:
    """A model from a saved folder. Raises ConfigError or WeightsError that list all problems."""
    folder = Path(folder)
    info = read_info(folder)
    return _build_from_file(model_spec(info.model), info, folder / "model.safetensors")


def is_folder(name: str | Path) -> bool:
    """Whether ``name`` means a saved folder rather than a registered model."""
    return Path(name).is_dir() or os.sep in str(name)


def _load_published(
    spec: ModelSpec, tag: str, revision: str | None, overrides: dict[str, Any]
) -> nn.Module:
    checkpoint = spec.checkpoint(tag)
    if not spec.checkpoints:
        raise UnknownModelError(f"{spec.name} has no published weights")
    if not checkpoint.repo:
        return load_model(SHIPPED / f"{spec.name}.{checkpoint.tag}")
    from .hub import fetch

    path = fetch(checkpoint, revision=revision)
    return _build_from_file(spec, spec.info(checkpoint.tag, **overrides), path)


def _build(spec: ModelSpec, info: ModelInfo) -> nn.Module:
    model = spec.build(info.config)
    model.eval()
    model.info = info
    return model


def _build_from_file(spec: ModelSpec, info: ModelInfo, path: Path) -> nn.Module:
    weights, metadata = read_safetensors(path)
    return _build_with(
        spec, info, weights, mlx_layout=metadata.get("format") == "mlx", origin=str(path)
    )


def _build_with(
    spec: ModelSpec,
    info: ModelInfo,
    weights: Mapping[str, mx.array],
    *,
    mlx_layout: bool,
    origin: str,
) -> nn.Module:
    named = rename(weights, spec)
    adapted = spec.adapt({k: tuple(v.shape) for k, v in named.items()})
    info = replace(info, config=replace(info.config, **adapted))
    model = _build(spec, info)
    load_weights(model, named, mlx_layout=mlx_layout, origin=origin)
    return model


def rename(weights: Mapping[str, mx.array], spec: ModelSpec) -> dict[str, mx.array]:
    """Upstream keys in the model's names, buffers of no use here dropped."""
    named = {}
    for key, array in weights.items():
        if _IGNORED.search(key):
            continue
        for pattern, ours in spec.renames:
            key = re.sub(pattern, ours, key)
        named[key] = array
    return named


def load_weights(
    model: nn.Module,
    weights: Mapping[str, mx.array],
    *,
    mlx_layout: bool = False,
    origin: str = "the given weights",
) -> None:
    """Put ``weights`` into ``model``, all of them or none.

    Convolution kernels are given as torch stores them (output, input, height, width), or as
    MLX does with ``mlx_layout``. Raises WeightsError that lists every missing, unexpected,
    misshapen or non-finite array.
    """
    wanted: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    layers = dict(model.named_modules())
    problems = _list("missing", wanted.keys() - weights.keys())
    problems += _list("unexpected", weights.keys() - wanted.keys())
    fitted = []
    for key in sorted(wanted.keys() & weights.keys()):
        array = weights[key]
        if not mlx_layout:
            array = _to_mlx(array, layers[key.rpartition(".")[0]], key)
        if array.shape != wanted[key].shape and _core(array.shape) == _core(wanted[key].shape):
            array = array.reshape(wanted[key].shape)
        if array.shape != wanted[key].shape:
            problems.append(f"{key} has shape {array.shape}, expected {wanted[key].shape}")
        elif not mx.issubdtype(array.dtype, mx.floating):
            problems.append(f"{key} has type {array.dtype}, expected floating point")
        elif not mx.isfinite(array).all():
            problems.append(f"{key} has NaN or infinite values")
        fitted.append((key, array))
    if problems:
        raise WeightsError(f"{origin} does not fit {_name(model)}: {'; '.join(problems)}")
    model.load_weights(fitted)


def _to_mlx(array: mx.array, layer: nn.Module, key: str) -> mx.array:
    axes = _LAYOUTS.get(type(layer))
    if axes is None or not key.endswith("weight") or array.ndim != len(axes):
        return array
    return array.transpose(axes)


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its ones: (C, 1, 1) and (C,) are the same vector."""
    return tuple(n for n in shape if n != 1)


def _list(what: str, keys: Any) -> list[str]:
    shown = sorted(keys)
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return [f"{what} {len(shown)}: {', '.join(shown[:12])}{more}"] if shown else []


def _name(model: nn.Module) -> str:
    info = getattr(model, "info", None)
    return info.name if info else type(model).__name__


def save_model(model: nn.Module, folder: str | Path, *, force: bool = False) -> Path:
    """Write ``model`` (with its ``info``) to a folder that ``create_model`` reads.

    Raises OutputError if ``folder`` exists and ``force`` is not given, or cannot be written;
    nothing half-made is left then.
    """
    with replacing(folder, force=force, marker="config.json") as partial:
        partial.mkdir()
        text = json.dumps(model.info.to_dict(), indent=1, ensure_ascii=False)
        (partial / "config.json").write_text(text + "\n", encoding="utf-8")
        arrays = dict(tree_flatten(model.parameters()))
        mx.save_safetensors(str(partial / "model.safetensors"), arrays, {"format": "mlx"})
    return Path(folder)


def read_info(folder: Path) -> ModelInfo:
    """The ``config.json`` of a saved folder. Raises ConfigError."""
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"{folder} is no saved model: it has no config.json; `ondevice list` has the names"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not isinstance(values.get("model"), str):
            raise ConfigError(f"{path} names no model")
        spec = model_spec(values["model"])
        config: ModelConfig = type(spec.config).from_dict(values.pop("config"))
        preprocess = Preprocess.from_dict(values.pop("preprocess"))
        return ModelInfo.from_dict({**values, "config": config, "preprocess": preprocess})
    except (ValueError, KeyError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
