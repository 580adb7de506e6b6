"""Models with their weights: created by name, read from and written to folders.

A saved model is a folder of ``config.json`` (a ``ModelInfo``) and ``model.safetensors``. One
that timm saved is read as well.
Files may hold float16 to be small; a model computes in float32 unless told otherwise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..config import ModelConfig, ModelInfo, Preprocess
from ..config.labels import check_labels
from ..errors import ConfigError, UnknownModelError, WeightsError
from ..registry import (
    VLM_TYPES,
    has_scheme,
    hub_repository,
    model_spec,
    parse_name,
    registered_name,
    unlisted_repository,
)
from ..signature import check_is_ours
from .fit import (
    Weights,
    build,
    check_dtype,
    listed,
    load_as,
    misfits_of,
    name_of,
    say_license,
)
from .hub import fetch, fetch_model
from .output import replacing
from .safetensors import TORCH, write_safetensors
from .timm_folder import find_weights, is_timm, timm_info

SHIPPED = Path(__file__).parent / "shipped"
PACKAGES = {".mlpackage", ".aimodel"}  # suffixes of what export writes


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
        return build(spec, spec.info(**overrides), dtype)
    checkpoint = spec.checkpoint(tag)
    info = spec.info(checkpoint.tag, **overrides)
    say_license(spec, info.tag, info.license)  # before it comes
    path = fetch(checkpoint, revision=revision)
    return load_as(info, _readable(path), dtype=dtype, new_head=new_head)


def _readable(path: Path) -> Weights:
    """What to load from a file; one that torch wrote is read without running it."""
    if path.suffix not in TORCH:
        return path
    from ondevice.weights.checkpoint import read_checkpoint

    return read_checkpoint(path)


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
        check_dtype(dtype)
    check_labels(model.info.labels, model.info.config.num_classes, name_of(model))
    _check_as_configured(model)
    with replacing(folder, force=force, marker="config.json") as partial:
        partial.mkdir()
        text = json.dumps(model.info.to_dict(), indent=1, ensure_ascii=False)
        (partial / "config.json").write_text(text + "\n", encoding="utf-8")
        arrays = dict(tree_flatten(model.parameters()))
        stored = {k: v.astype(dtype or v.dtype) for k, v in arrays.items()}
        if problems := misfits_of(arrays, stored, stored):
            raise WeightsError(f"{name_of(model)} cannot be saved: {'; '.join(problems)}")
        write_safetensors(partial / "model.safetensors", stored, {"format": "mlx"})
    return Path(folder)


def _check_as_configured(model: nn.Module) -> None:
    """Raises WeightsError for a model that its config does not build: nothing could read it."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    built = build(model_spec(model.info.model), model.info, mx.float32)
    mx.random.seed(high << 32 | low)  # the same state again: to save draws no numbers
    wanted: dict[str, mx.array] = dict(tree_flatten(built.parameters()))
    given: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    problems = listed("missing", wanted.keys() - given.keys())
    problems += listed("unexpected", given.keys() - wanted.keys())
    both = wanted.keys() & given.keys()
    problems += listed("misshapen", [k for k in both if wanted[k].shape != given[k].shape])
    if problems:
        raise WeightsError(
            f"{name_of(model)} cannot be saved: its config builds another model: "
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
