"""A small SigLIP and its two kinds of tokenizer, made of nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ondevice import create_model, model_spec

from ..parity import siglip_numpy
from ..parity.siglip_numpy import Size

FILE = "open_clip_model.safetensors"
_T5 = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁photo", "▁of", "▁cat", "▁dog", "▁cats"]
_GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "▁"]
_MERGES = ["c a", "ca t", "d o", "do g", "a ▁"]


def size(name: str) -> Size:
    """Of a small one with what is particular to ``name``."""
    text, trunk = model_spec(f"{name}_text").config, model_spec(name).config
    acts = {"text": text.act, "image": trunk.act}
    tanh = tuple(part for part, act in acts.items() if act == "gelu_tanh")
    return Size(patch=trunk.patch, tanh=tanh)


def options(found: Size) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``create_model`` has to know of both encoders."""
    common = {"embed_dim": found.width, "depth": found.depth, "heads": found.heads}
    text = common | {"width": found.width, "vocab": found.vocab, "context": found.context}
    return common | {"img_size": found.pixels}, text


def arrays(found: Size) -> dict[str, mx.array]:
    return {k: mx.array(v) for k, v in siglip_numpy.weights(found).items()}


def towers(name: str) -> tuple[nn.Module, nn.Module]:
    found = size(name)
    image, text = options(found)
    return (
        create_model(name, weights=arrays(found), **image),
        create_model(f"{name}_text", weights=arrays(found), **text),
    )


def shrink(monkeypatch: Any, name: str) -> None:
    """Let ``name`` be small wherever it is built."""
    from ondevice import registry

    found = size(name)
    for spec, changes in zip(
        (model_spec(name), model_spec(f"{name}_text")), options(found), strict=True
    ):
        known = spec.checkpoints[0]
        preprocess = replace(known.preprocess, size=found.pixels)
        config = type(spec.config).from_dict(asdict(spec.config) | changes)
        file = replace(known, preprocess=preprocess)
        small = replace(spec, config=config, preprocess=preprocess, checkpoints=(file,))
        monkeypatch.setitem(registry._SPECS, spec.name, small)


def write(folder: Path, name: str) -> Path:
    """The file with both encoders as timm publishes it, and the tokenizer beside it."""
    path = folder / FILE
    mx.save_safetensors(str(path), arrays(size(name)), {"format": "pt"})
    write_tokenizer(folder, model_spec(f"{name}_text").config.tokens)
    return path


def write_tokenizer(folder: Path, kind: str) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({"t5": t5_json, "gemma": gemma_json}[kind]()))
    return path


def t5_json() -> dict[str, Any]:
    """Pieces with scores, as transformers makes it of T5's sentencepiece model."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*_T5, *letters, *(f"piece{i}" for i in range(50))]
    special = [_special(i, words[i]) for i in range(3)]
    # One of the many that are beyond the model's vocabulary and stand in no text.
    special.append(_special(len(words), "<extra_id_0>"))
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    return _json(
        special,
        normalizer=None,
        pre_tokenizer=space | {"split": True},
        model={
            "type": "Unigram",
            "unk_id": 2,
            "vocab": [[word, -1.0 if "▁" in word else -6.0] for word in words],
            "byte_fallback": False,
        },
        post_processor={
            "type": "TemplateProcessing",
            "single": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
    )


def gemma_json() -> dict[str, Any]:
    """Byte pairs over spaces that are letters."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*_GEMMA, *letters, *(merge.replace(" ", "") for merge in _MERGES)]
    words += [f"piece{i}" for i in range(50)]
    return _json(
        [_special(i, words[i]) for i in range(4)],
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        pre_tokenizer=None,
        model={
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": False,
            "vocab": {word: i for i, word in enumerate(words)},
            "merges": _MERGES,
        },
        post_processor=None,
    )


def _json(added: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    padding = {
        "strategy": {"Fixed": 5},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    head = {"version": "1.0", "truncation": None, "padding": padding, "decoder": None}
    return head | {"added_tokens": added} | parts


def _special(number: int, token: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, **plain, "special": True}
