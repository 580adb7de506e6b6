"""From a checkpoint in somebody's training format to a saved model."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ondevice.clip.load import save_clip, text_of
from ondevice.clip.tokenizer import FILE as TOKENIZER
from ondevice.errors import ConfigError, WeightsError
from ondevice.registry import model_spec
from ondevice.safetensors import INDEX
from ondevice.weights import create_model, is_folder, save_model

from .checkpoint import read_checkpoint


def import_weights(
    checkpoint: str | Path,
    name: str,
    out: str | Path,
    *,
    entry: str | None = None,
    dtype: mx.Dtype | None = None,
    force: bool = False,
    **overrides: Any,
) -> nn.Module:
    """Read ``checkpoint`` as the model ``name``, save it in the folder ``out`` and give it.

    A checkpoint is a .safetensors file or one of torch.save (.pth, .pt, .bin), in timm's key
    names or the authors' own; ``entry`` says which of its weights, where a training script
    saved several. ``name`` may have a tag, whose preprocessing and licence are then taken.
    ``dtype`` is the type in the new file, ``overrides`` replace config fields. Of a CLIP both
    encoders are saved, and the ``tokenizer.json`` that lies beside the checkpoint.

    Raises UnknownModelError, ConfigError, WeightsError with all problems, OutputError.
    """
    if is_folder(name):
        raise ConfigError(f"{name} is a folder; expected a model's name, see `ondevice list`")
    path = Path(checkpoint)
    text = text_of(name) if model_spec(name).text else ""
    try:
        weights = path if _is_safetensors(path) else read_checkpoint(path, entry)
        model = create_model(name, weights=weights, **overrides)
        words = create_model(text, weights=weights) if text else None
    except WeightsError as error:
        about = "" if str(path) in str(error) else f"{path}: "
        raise WeightsError(f"{about}{error}") from error
    _set_origin(model, path)
    if words is None:
        save_model(model, out, dtype=dtype, force=force)
        return model
    _set_origin(words, path)
    beside = path.with_name(TOKENIZER)
    tokenizer = beside if beside.is_file() else None
    save_clip(model, words, out, tokenizer=tokenizer, dtype=dtype, force=force)
    return model


def _set_origin(model: nn.Module, path: Path) -> None:
    source = model.info.source if model.info.tag else ""
    model.info = replace(model.info, source=source, provenance=_provenance(path))


def _is_safetensors(path: Path) -> bool:
    return path.name.endswith((".safetensors", INDEX))


def _provenance(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"Imported from {path.name}, SHA-256 {digest}."
