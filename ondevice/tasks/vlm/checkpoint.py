"""FastVLM's files: which a folder needs, which part an array belongs to, what a config says.

Four layouts are known: Apple's, transformers', mlx-vlm's (any part of which may be quantized),
and the folders of Apple's app, whose encoder is a Core ML package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...errors import ConfigError, WeightsError, printable
from ...registry import VLM_TYPES, model_spec
from ...weights.safetensors import INDEX, read_index, read_safetensors

ENCODER = "fastvithd"
_WEIGHTS = "model.safetensors"
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))

# What is fetched from the hub, if it is there.
FILES = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    f"model{INDEX}",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)

# Which part an array belongs to, by its name in any of the layouts.
_LANGUAGE = re.compile(
    r"(?:model\.language_model|language_model\.model|model)\.((?:embed_tokens|layers|norm)\..+)"
)
_LM_HEAD = re.compile(r"(?:language_model\.)?(lm_head\..+)")
_PROJECTOR = re.compile(
    r"(?:model\.)?(?:mm_projector|multi_modal_projector)\.(?:linear_|layers\.)?(\d)\.(\w+)"
)
_UNUSED = re.compile(r"rotary_emb\.inv_freq$")


@dataclass
class Parts:
    """The arrays of a checkpoint: the encoder's under their own names, the others in ours."""

    encoder: dict[str, mx.array] = field(default_factory=dict)
    projector: dict[str, mx.array] = field(default_factory=dict)
    language: dict[str, mx.array] = field(default_factory=dict)


def missing_files(folder: Path) -> list[str]:
    """The files that ``folder`` lacks to be a checkpoint, by name."""
    lacks = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(all((folder / f).is_file() for f in files) for files in _TOKENIZERS):
        lacks.append(" or ".join(" and ".join(files) for files in _TOKENIZERS))
    return lacks + _missing_weights(folder)


def _missing_weights(folder: Path) -> list[str]:
    if (folder / _WEIGHTS).is_file():
        return []
    index = folder / f"model{INDEX}"
    if not index.is_file():
        return [f"{_WEIGHTS} or {index.name}"]
    return [f for f in sorted(set(read_index(index).values())) if not (folder / f).is_file()]


def weights_file(folder: Path) -> Path:
    """The file of arrays, or the index of several."""
    single = folder / _WEIGHTS
    return single if single.is_file() else folder / f"model{INDEX}"


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a FastVLM. Raises ConfigError."""
    config = _read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in VLM_TYPES:
        raise ConfigError(
            f"{folder} holds a model of type {printable(str(kind))!r}, no FastVLM, whose type "
            f"is {', '.join(VLM_TYPES)}"
        )
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be used: {reason}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} cannot be used: it is no table")
    return values


def end_tokens(folder: Path, config: Mapping[str, Any]) -> list[int]:
    """The ids of the tokens that end an answer. Raises ConfigError."""
    path = folder / "generation_config.json"
    both = [config, _read_json(path)] if path.is_file() else [config]
    given = [values.get("eos_token_id") for values in both]
    flat = [n for ids in given for n in (ids if isinstance(ids, list) else [ids])]
    return sorted({n for n in flat if isinstance(n, int)})


def language_config(
    config: Mapping[str, Any], weights: Mapping[str, mx.array]
) -> dict[str, Any]:
    """What mlx-lm builds its Qwen2 from. What the shapes of the weights say, they decide."""
    text = {**config, **(config.get("text_config") or {})}
    rope = text.get("rope_parameters") or {}
    return text | {
        "model_type": "qwen2",
        "rope_theta": rope.get("rope_theta", text.get("rope_theta", 1_000_000.0)),
        "vocab_size": weights["model.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": "lm_head.weight" not in weights,
    }


def read_parts(folder: Path) -> Parts:
    """The arrays in ``folder``, by part. Raises WeightsError, also if a part is missing."""
    arrays, _ = read_safetensors(weights_file(folder))
    parts = split(arrays, origin=str(folder))
    if not parts.encoder:
        raise WeightsError(
            f"{folder} has no vision encoder: in the folders of Apple's app it is a Core ML "
            "package; take a complete checkpoint, such as apple/FastVLM-0.5B"
        )
    for name in ("projector", "language"):
        if not getattr(parts, name):
            raise WeightsError(f"{folder} has no weights of the {name}; is it a FastVLM?")
    if "model.embed_tokens.weight" not in parts.language:
        raise WeightsError(f"{folder} has no embed_tokens; is it a FastVLM?")
    return parts


def split(arrays: Mapping[str, mx.array], origin: str) -> Parts:
    """The arrays by part. Raises WeightsError that names those that no FastVLM has."""
    parts, unknown = Parts(), []
    encoder = re.compile(model_spec(ENCODER).key_prefix)
    for key, array in arrays.items():
        if _UNUSED.search(key):
            continue
        if encoder.match(key):
            parts.encoder[key] = array
        elif match := _LM_HEAD.fullmatch(key):
            parts.language[match[1]] = array
        elif match := _LANGUAGE.fullmatch(key):
            parts.language[f"model.{match[1]}"] = array
        elif match := _PROJECTOR.fullmatch(key):
            parts.projector[f"{match[1]}.{match[2]}"] = array
        else:
            unknown.append(printable(key))
    if unknown:
        shown = ", ".join(sorted(unknown)[:12]) + (", …" if len(unknown) > 12 else "")
        raise WeightsError(f"{origin} has {len(unknown)} arrays no FastVLM has: {shown}")
    return parts
