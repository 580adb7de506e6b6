"""Models with their weights: created by name, read from and written to folders.

A saved model is a folder of ``config.json`` (a ``ModelInfo``) and ``model.safetensors``. One
that timm saved is read as well.
Files may hold float16 to be small; a model computes in float32 unless told otherwise.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ..config import ModelConfig, ModelInfo, Preprocess
from ..config.labels import check_labels
from ..errors import ConfigError, UnknownModelError, WeightsError, printable
from ..nn.adapter import add_adapters
from ..registry import (
    VLM_TYPES,
    ModelSpec,
    has_scheme,
    hub_repository,
    model_spec,
    parse_name,
    registered_name,
    unlisted_repository,
)
from ..signature import check_is_ours
from .hub import fetch, fetch_model, mention_license
from .mlx_quantized import unpack
from .output import replacing
from .prefixes import Arrays, Fit, best_fit, is_ignored, split_stacked, unwrap
from .safetensors import TORCH, read_safetensors, write_safetensors
from .timm_folder import find_weights, is_timm, timm_info

_log = logging.getLogger(__name__)
SHIPPED = Path(__file__).parent / "shipped"
PACKAGES = {".mlpackage", ".aimodel"}  # suffixes of what export writes
LISTED = 12  # arrays of a kind, of those that do not fit

Weights = str | Path | Mapping[str, mx.array]

# Axes of a torch weight in the order MLX wants them, by the layer that receives it.
_LAYOUTS: dict[type[nn.Module], tuple[int, ...]] = {
    nn.Conv1d: (0, 2, 1),
    nn.Conv2d: (0, 2, 3, 1),
    nn.ConvTranspose2d: (1, 2, 3, 0),
}


def create_model(
    name: str | Path,
    *,
    weights: Weights | None = None,
    pretrained: bool = False,
    revision: str | None = None,
    dtype: mx.Dtype = mx.float32,
    **overrides: Any,
) -> nn.Module:
    """Build a model in eval mode; ``model.info`` says what it is.

    ``name`` is a registered name, ``name.tag``, a folder that we or timm saved, or a
    repository of the hub ("timm/shvit_s1.in1k", or any of timm's as "hf-hub:OWNER/NAME"). A
    tag or ``pretrained`` loads published weights (from the package or the Hugging Face hub),
    ``weights`` a ``.safetensors`` file, a saved folder or a dict of arrays in timm's or our
    own names, of which a tag then only says the preprocessing and the licence; otherwise they
    are random. Parameters have type ``dtype``, whatever the file's. ``overrides`` replace
    config fields; with another ``num_classes`` than the weights have, the head's are random, to
    be trained, and of a saved folder nothing else can be replaced.

    Raises UnknownModelError, ConfigError, WeightsError, HubError.
    """
    name = str(name)
    folder = _saved_folder(name, weights, pretrained)
    if revision is not None and (folder or weights is not None):
        source = folder if weights is None else "the given weights"
        raise ConfigError(f"revision is of a repository of the hub; {name} comes from {source}")
    if folder:
        return _load_named(folder, name, dtype, overrides)
    if weights is None and (repo := unlisted_repository(name)):
        return _load_repository(repo, revision, dtype, overrides)
    spec, tag = parse_name(name)
    new_head = "num_classes" in overrides
    if weights is not None:
        info = spec.contract(tag, **overrides)
        return load_as(info, weights, dtype=dtype, new_head=new_head)
    if not (tag or pretrained):
        if revision is not None:
            raise ConfigError(f"revision is of published weights: {name} has random ones")
        return _build(spec, spec.info(**overrides), dtype)
    checkpoint = spec.checkpoint(tag)
    info = spec.info(checkpoint.tag, **overrides)
    _mention_license(spec, info.tag, info.license)  # before it comes
    path = fetch(checkpoint, revision=revision)
    return load_as(info, _readable(path), dtype=dtype, new_head=new_head)


def _readable(path: Path) -> Weights:
    """What to load from a file; one that torch wrote is read without running it."""
    if path.suffix not in TORCH:
        return path
    from ondevice.weights.checkpoint import read_checkpoint

    return read_checkpoint(path)


def _mention_license(spec: ModelSpec, tag: str, license: str) -> None:
    """Say it once of a model, not of each of its parts."""
    name = spec.part_of or spec.name
    mention_license(f"{name}.{tag}" if tag else name, license)


def load_model(folder: str | Path, *, dtype: mx.Dtype = mx.float32) -> nn.Module:
    """A model from a saved folder. Raises ConfigError or WeightsError with all problems."""
    info, path = read_info(Path(folder)), find_weights(Path(folder))
    try:
        return load_as(info, _readable(path), dtype=dtype)
    except WeightsError as error:
        about = "" if str(path) in str(error) else f"{path}: "
        raise WeightsError(f"{about}{error}") from error


def model_info(name: str | Path) -> ModelInfo:
    """What ``create_model(name)`` would be, known without building or downloading it."""
    name = str(name)
    if folder := _saved_folder(name, None, pretrained=False):
        return read_info(folder)
    if unlisted_repository(name):
        raise UnknownModelError(
            f"{name} is not listed here, and nothing is fetched to say what it is; save it "
            "with `ondevice import` and give the folder"
        )
    spec, tag = parse_name(name)
    return spec.info(tag)


def is_folder(name: str | Path) -> bool:
    """Whether ``name`` means a saved folder rather than a model of the registry or the hub."""
    if Path(name).is_dir():
        return True
    return os.sep in str(name) and not (has_scheme(str(name)) or registered_name(str(name)))


def _saved_folder(name: str, weights: Weights | None, pretrained: bool) -> Path | None:
    """The folder that ``create_model`` is asked for, if it is one: given or shipped."""
    if is_folder(name):
        return Path(name)
    if isinstance(weights, str | Path):
        return Path(weights) if Path(weights).is_dir() else None
    if unlisted_repository(name):
        return None
    spec, tag = parse_name(name)
    if weights is not None or not (tag or pretrained) or not spec.checkpoint(tag).is_shipped:
        return None
    return SHIPPED / f"{spec.name}.{spec.checkpoint(tag).tag}"


def _load_named(
    folder: Path, name: str, dtype: mx.Dtype, overrides: Mapping[str, Any]
) -> nn.Module:
    if fixed := overrides.keys() - {"num_classes"}:
        raise ConfigError(
            f"{folder} has its own config; {', '.join(sorted(fixed))} cannot change it"
        )
    if overrides:
        info = _with_classes(read_info(folder), overrides["num_classes"])
        weights = _readable(find_weights(folder))
        model = load_as(info, weights, dtype=dtype, new_head=True)
    else:
        model = load_model(folder, dtype=dtype)
    if not is_folder(name) and model.info.model != model_spec(name).name:
        raise ConfigError(f"{folder} holds {model.info.name}, not {name}")
    return model


def _load_repository(
    repo: str, revision: str | None, dtype: mx.Dtype, overrides: Mapping[str, Any]
) -> nn.Module:
    """A model that somebody pushed to the hub with timm."""
    folder = fetch_model(repo, revision)
    model = _load_named(folder, str(folder), dtype, overrides)
    model.info = replace(model.info, source=f"https://huggingface.co/{repo}")
    return model


def _with_classes(info: ModelInfo, num_classes: int) -> ModelInfo:
    """The same for other classes, of which nothing is known. Raises ConfigError."""
    if num_classes == info.config.num_classes:
        return info
    config = type(info.config).from_dict({**info.config.to_dict(), "num_classes": num_classes})
    return replace(info, config=config, tag="", labels=(), top1=None, metrics={}, recipe={})


def load_as(
    info: ModelInfo, weights: Weights, *, dtype: mx.Dtype = mx.float32, new_head: bool = False
) -> nn.Module:
    """The model that ``info`` describes with ``weights``, as ``create_model`` takes them.

    Wrappers' prefixes, and others that all of the model's arrays have, are taken off. With
    ``new_head`` a classifier of other classes than the weights have keeps its random head,
    which is said. Raises ConfigError or WeightsError with all problems.
    """
    spec = model_spec(info.model)
    _mention_license(spec, info.tag, info.license)
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
    model = _build(spec, replace(info, config=replace(info.config, **adapted)), dtype)
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


def _check_dtype(dtype: Any) -> None:
    """Raises ConfigError for a type that cannot hold weights: integers would cut them off."""
    if not isinstance(dtype, mx.Dtype) or not mx.issubdtype(dtype, mx.floating):
        raise ConfigError(f"dtype is a float type of MLX, such as mx.float16; given {dtype!r}")


def _build(spec: ModelSpec, info: ModelInfo, dtype: mx.Dtype) -> nn.Module:
    _check_dtype(dtype)
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
    problems = _list("missing", wanted.keys() - weights.keys())
    problems += _list("unexpected", weights.keys() - wanted.keys())
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
    misfits = _misfits(given, fitted, wanted)
    more = [f"and {len(misfits) - LISTED} more"] if len(misfits) > LISTED else []
    problems += [*misfits[:LISTED], *more]
    if problems:
        raise WeightsError(f"{_name(model)} cannot take {origin}: {'; '.join(problems)}")
    model.load_weights(list(fitted.items()))


def _misfits(
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


def _list(what: str, keys: Any) -> list[str]:
    shown = [printable(key) for key in sorted(keys)]
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return [f"{what} {len(shown)}: {', '.join(shown[:LISTED])}{more}"] if shown else []


def _name(model: nn.Module) -> str:
    info = getattr(model, "info", None)
    return info.name if info else type(model).__name__


def save_model(
    model: nn.Module, folder: str | Path, *, dtype: mx.Dtype | None = None, force: bool = False
) -> Path:
    """Write ``model`` (with its ``info``) to a folder that ``create_model`` reads.

    ``dtype`` is the type in the file, such as ``mx.float16``; the parameters' own by default.
    Raises ConfigError for a module without ``info`` or a type that is no float's, WeightsError
    if values do not fit it or the model is not what its config builds (it is fused, or has a
    head of another make), OutputError if ``folder`` exists and ``force`` is not given, or
    cannot be written; nothing half-made is left then.
    """
    check_is_ours(model)
    if dtype is not None:
        _check_dtype(dtype)
    check_labels(model.info.labels, model.info.config.num_classes, _name(model))
    _check_as_configured(model)
    with replacing(folder, force=force, marker="config.json") as partial:
        partial.mkdir()
        text = json.dumps(model.info.to_dict(), indent=1, ensure_ascii=False)
        (partial / "config.json").write_text(text + "\n", encoding="utf-8")
        arrays = dict(tree_flatten(model.parameters()))
        stored = {k: v.astype(dtype or v.dtype) for k, v in arrays.items()}
        if problems := _misfits(arrays, stored, stored):
            raise WeightsError(f"{_name(model)} cannot be saved: {'; '.join(problems)}")
        write_safetensors(partial / "model.safetensors", stored, {"format": "mlx"})
    return Path(folder)


def _check_as_configured(model: nn.Module) -> None:
    """Raises WeightsError for a model that its config does not build: nothing could read it."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    built = _build(model_spec(model.info.model), model.info, mx.float32)
    mx.random.seed(high << 32 | low)  # the same state again: to save draws no numbers
    wanted: dict[str, mx.array] = dict(tree_flatten(built.parameters()))
    given: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    problems = _list("missing", wanted.keys() - given.keys())
    problems += _list("unexpected", given.keys() - wanted.keys())
    both = wanted.keys() & given.keys()
    problems += _list("misshapen", [k for k in both if wanted[k].shape != given[k].shape])
    if problems:
        raise WeightsError(
            f"{_name(model)} cannot be saved: its config builds another model: "
            f"{'; '.join(problems)}; save it before it is fused or quantized, and make another "
            "head by num_classes"
        )


def _nameless(values: Any) -> str:
    """What a ``config.json`` that names none of our models is, and who takes it."""
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind in VLM_TYPES:
        return "it is a FastVLM's; `ondevice describe --model` and `ondevice export` take it"
    return "it names no model"


def read_info(folder: Path) -> ModelInfo:
    """The ``config.json`` of a saved folder. Raises ConfigError."""
    path = folder / "config.json"
    if not path.is_file() and folder.suffix in PACKAGES and folder.exists():
        raise ConfigError(
            f"{folder} is a package, and a model is expected: a name or a saved folder; "
            "`ondevice evaluate`, `verify` and `inspect` take packages"
        )
    if not path.is_file():
        hub = hub_repository(str(folder))
        also = f"; of the hub's it is hf-hub:{hub}" if hub and not folder.is_dir() else ""
        raise ConfigError(
            f"{folder} is no saved model: it has no config.json; `ondevice list` has the "
            f"names{also}"
        )
    try:
        values = json.loads(path.read_bytes())
        if is_timm(values):
            return timm_info(values)
        if not isinstance(values, dict) or not isinstance(values.get("model"), str):
            raise ConfigError(_nameless(values))
        spec = model_spec(values["model"])
        config: ModelConfig = type(spec.config).from_dict(values.pop("config", {}))
        if "preprocess" not in values:
            raise ConfigError("it does not say how images are prepared: no preprocess")
        preprocess = Preprocess.from_dict(values.pop("preprocess"))
        info = ModelInfo.from_dict({**values, "config": config, "preprocess": preprocess})
        check_labels(info.labels, config.num_classes, info.name)
        return info
    except (ValueError, RecursionError, OSError, ConfigError, UnknownModelError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be used: {reason}") from error
