"""A CLIP from the hub, or from a folder.

Its folder is that of the image encoder, a saved model, with the text encoder in ``text/`` and
``tokenizer.json``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

import mlx.core as mx
import mlx.nn as nn

from ...errors import ConfigError, HubError
from ...registry import Checkpoint, list_models, model_spec, parse_name
from ...weights.folder import create_model, is_folder, load_model, read_info, save_model
from ...weights.hub import fetch
from ...weights.output import replacing
from .model import CLIP
from .tokenizer import FILE, read_tokenizer

if TYPE_CHECKING:
    from ...models.clip import ImageTower
    from ...models.clip_text import TextTower

TEXT = "text"
_OPENAI = Checkpoint(tag="", repo="openai/clip-vit-base-patch32", file=FILE, license="mit")


def load_clip(
    name: str | Path,
    *,
    tokenizer: str | Path | None = None,
    cache: str | Path | None = None,
    revision: str | None = None,
    dtype: mx.Dtype = mx.float32,
) -> CLIP:
    """A CLIP by name, such as "mobileclip_s0", or from a folder of ``ondevice import``.

    ``tokenizer`` is a ``tokenizer.json``; else it is the folder's, the repository's or, of a
    MobileCLIP, OpenAI's, which is the same. ``cache`` is a folder where vectors of labels are
    kept.

    Raises UnknownModelError, ConfigError, WeightsError, HubError.
    """
    image_info = read_info(Path(name)) if is_folder(name) else None
    text_name = text_of(image_info.name if image_info else str(name))
    image = create_model(str(name), pretrained=True, revision=revision, dtype=dtype)
    text = (
        _load_text(Path(name), text_name, dtype)
        if image_info
        else create_model(text_name, pretrained=True, revision=revision, dtype=dtype)
    )
    config = text.config
    towers = cast("ImageTower", image), cast("TextTower", text)
    if config.embed_dim != towers[0].dim:
        raise ConfigError(
            f"{name}: its images have vectors of {towers[0].dim} values, its "
            f"texts of {config.embed_dim}"
        )
    path = tokenizer or find_tokenizer(name, revision, openai=config.tokens == "clip")
    return CLIP(*towers, read_tokenizer(path, config), cache=cache)


def text_of(name: str) -> str:
    """The name of the text encoder that belongs to an image encoder. Raises ConfigError."""
    spec, tag = parse_name(name)
    if not spec.text:
        known = ", ".join(n for n in list_models() if model_spec(n).text)
        raise ConfigError(f"{name} has no text encoder; there are {known}")
    return f"{spec.text}.{tag}" if tag else spec.text


def load_text(name: str | Path, *, dtype: mx.Dtype = mx.float32) -> nn.Module:
    """The text encoder alone of what ``load_clip`` takes."""
    if is_folder(name):
        return _load_text(Path(name), text_of(read_info(Path(name)).name), dtype)
    return create_model(text_of(str(name)), pretrained=True, dtype=dtype)


def add_tokenizer(model: nn.Module, folder: Path) -> None:
    """Let a text encoder that was loaded from ``folder`` show itself captions.

    The tokenizer lies beside it, or in the folder of the CLIP that it is a part of.
    """
    files = [folder / FILE, folder.parent / FILE]
    found = next((path for path in files if path.is_file()), None)
    if found and any(given.kind == "tokens" for given in model.signature.inputs):
        model.tokenize = read_tokenizer(found, model.config)


def _load_text(folder: Path, name: str, dtype: mx.Dtype) -> nn.Module:
    if not (folder / TEXT).is_dir():
        raise ConfigError(f"{folder} has no text encoder: there is no folder {TEXT} in it")
    model = load_model(folder / TEXT, dtype=dtype)
    if model.info.model != model_spec(name).name:
        raise ConfigError(f"{folder / TEXT} holds {model.info.name}, expected {name}")
    return model


def find_tokenizer(
    name: str | Path, revision: str | None = None, *, openai: bool = True
) -> Path:
    """The tokenizer of a CLIP: its own, or else OpenAI's, if that is the same.

    Raises HubError, ConfigError.
    """
    if is_folder(name) and (path := Path(name) / FILE).is_file():
        return path
    if not is_folder(name):
        spec, tag = parse_name(str(name))
        repo = spec.checkpoint(tag).repo
        try:
            return fetch(Checkpoint(tag="", repo=repo, file=FILE), revision)
        except HubError:
            if not openai:
                raise
    if not openai:
        raise ConfigError(f"{name} comes without {FILE}: give it with --tokenizer")
    try:
        return fetch(_OPENAI)
    except HubError as error:
        raise HubError(f"{name} comes without {FILE}, and {error}") from error


def save_clip(
    image: nn.Module,
    text: nn.Module,
    folder: str | Path,
    *,
    tokenizer: str | Path | None = None,
    dtype: mx.Dtype | None = None,
    force: bool = False,
) -> Path:
    """Write both encoders, and the tokenizer if given, to a folder that ``load_clip`` reads.

    Raises as ``save_model``.
    """
    with replacing(folder, force=force, marker="config.json") as partial:
        save_model(image, partial, dtype=dtype)
        save_model(text, partial / TEXT, dtype=dtype)
        if tokenizer is not None:
            shutil.copyfile(tokenizer, partial / FILE)
    return Path(folder)
