"""From a checkpoint in somebody's training format to a saved model."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import ModelInfo, Preprocess
from ..config.labels import check_labels
from ..errors import ConfigError, WeightsError
from ..registry import model_spec, parse_name
from ..weights.checkpoint import read_checkpoint, under
from ..weights.fit import Weights, load_as
from ..weights.folder import create_model, is_folder, read_info, save_model
from ..weights.safetensors import INDEX, read_safetensors
from ..weights.timm_folder import derived_license, find_weights, is_timm
from .clip.load import save_clip, text_of
from .clip.tokenizer import FILE as TOKENIZER

logger = logging.getLogger("ondevice")


def import_weights(
    checkpoint: str | Path,
    name: str,
    out: str | Path,
    *,
    entry: str | None = None,
    dtype: mx.Dtype | None = None,
    force: bool = False,
    preprocess: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    **overrides: Any,
) -> nn.Module:
    """Read ``checkpoint`` as the model ``name``, save it in the folder ``out``, return it.

    A checkpoint is a .safetensors file, one of torch.save (.pth, .pt, .bin, .ckpt) or a folder
    of timm's, with timm's key names or the authors' own; ``entry`` chooses a set of weights of
    several. The tag of ``name``, if any, gives preprocessing and licence;
    ``name`` may be "" where timm's ``config.json`` beside the weights names the model.
    ``preprocess`` (fields of ``Preprocess``), ``labels`` and ``overrides`` (of the config) take
    precedence over that file. Of a CLIP both encoders are saved, and the tokenizer beside them.

    Raises UnknownModelError, ConfigError, WeightsError with all problems, OutputError.
    """
    if name and is_folder(name):
        raise ConfigError(f"{name} is a folder; expected a model's name, see `ondevice list`")
    beside = _config_beside(path := Path(checkpoint))
    path = find_weights(path) if path.is_dir() else path
    info = _described(_started(name, beside, path, overrides), preprocess or {}, labels)
    text = text_of(name) if model_spec(info.model).text else ""
    try:
        weights = _read(path, entry)
        model = load_as(info, weights)
        text_model = create_model(text, weights=weights) if text else None
    except WeightsError as error:
        about = "" if str(path) in str(error) else f"{path}: "
        raise WeightsError(f"{about}{error}") from error
    provenance = _provenance(path) + (" Described by its config.json." if beside else "")
    model.info = replace(model.info, provenance=provenance)
    if text_model is None:
        save_model(model, out, dtype=dtype, force=force)
    else:
        text_model.info = replace(text_model.info, provenance=provenance)
        tokenizer = _beside(path, TOKENIZER)
        save_clip(model, text_model, out, tokenizer=tokenizer, dtype=dtype, force=force)
    return model


def _beside(path: Path, name: str) -> Path | None:
    found = path.with_name(name)
    return found if found.is_file() else None


def _config_beside(path: Path) -> ModelInfo | None:
    """What timm's ``config.json`` beside the weights says, if there is one."""
    folder = path if path.is_dir() else path.parent
    file = folder / "config.json"
    try:
        values = json.loads(file.read_bytes()) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        values = {}
    if is_timm(values):
        return read_info(folder)
    if path.is_dir() and isinstance(values, dict) and "model" in values:
        raise ConfigError(f"{path} is a saved model already: other commands take it as it is")
    if path.is_dir():
        raise ConfigError(f"{path} has no config.json of timm's; give the file of its weights")
    if values is not None:
        logger.warning(f"{file} is not one of timm's and was not read")
    return None


def _started(
    name: str, beside: ModelInfo | None, path: Path, overrides: Mapping[str, Any]
) -> ModelInfo:
    """The contract of ``name``, or of the file beside the weights; ``overrides`` win."""
    if not (name or beside):
        raise ConfigError(f"{path} does not say what it is: name the model, --model NAME")
    spec, tag = parse_name(name or beside.model if beside else name)
    if "img_size" in overrides and "img_size" not in spec.config.to_dict():
        raise ConfigError(
            f"{spec.name} is the same network at every size: it has no img_size; the size of "
            "its input is --size"
        )
    known = spec.contract(tag, **overrides)
    if beside is None:
        return known
    if beside.model != spec.name:
        file = path.with_name("config.json")
        raise ConfigError(f"{file} describes a {beside.model}, not a {spec.name}")
    config = type(spec.config).from_dict({**beside.config.to_dict(), **overrides})
    size = overrides.get("img_size", beside.preprocess.size)
    return replace(
        beside,
        config=config,
        preprocess=replace(beside.preprocess, size=size),
        license=derived_license(beside.license, known.license),
    )


def _described(
    info: ModelInfo, preprocess: Mapping[str, Any], labels: Sequence[str] | None
) -> ModelInfo:
    """``info`` with what the caller says of preprocessing and classes. Raises ConfigError."""
    spec = model_spec(info.model)
    if labels is not None and (spec.text or not info.config.num_classes):
        raise ConfigError(f"{spec.name} has no classes for these labels to name")
    contract = Preprocess.from_dict({**info.preprocess.to_dict(), **preprocess})
    only = info.config.to_dict().get("img_size") if spec.fixed_size else None
    if contract.size % spec.stride or only not in (None, contract.size):
        fits = f"{only}" if only else f"a multiple of {spec.stride}"
        raise ConfigError(f"size is {contract.size}, but {spec.name} takes {fits}")
    names = info.labels if labels is None else tuple(labels)
    check_labels(names, info.config.num_classes, info.name)
    return replace(info, preprocess=contract, labels=names)


def _read(path: Path, entry: str | None) -> Weights:
    """The weights in a file, those called ``entry`` if it is given. Raises WeightsError."""
    if not path.name.endswith((".safetensors", INDEX)):
        return read_checkpoint(path, entry)
    if entry is None:
        return path
    arrays, metadata = read_safetensors(path)
    found = {} if metadata.get("format") == "mlx" else under(arrays, entry)
    if not found:
        raise WeightsError(f"{path} has no weights of PyTorch whose names begin with {entry}.")
    return found


def _provenance(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"Imported from {path.name}, SHA-256 {digest}."
