"""A small CLIP and its tokenizer, made of nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path

from ondevice import create_model, model_spec
from ondevice.tasks.clip import CLIP, Tokenizer, save_clip

WORDS = "a photo of cat dog the black white small picture it's don't <3".split()
MERGES = [
    *("p h", "ph o", "pho t", "phot o</w>", "o f</w>", "c a", "ca t</w>", "d o", "do g</w>"),
    *("t h", "th e</w>", "' s</w>", "i t"),
]
IMAGE = {"embed_dim": (32, 32, 64, 64), "depth": (1, 1, 1, 1), "num_classes": 16}
TEXT = {"width": 64, "heads": 2, "depth": 2, "embed_dim": 16}


SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|"
    r"[^\s\p{L}\p{N}]+"
)
NORMALIZERS = [
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Lowercase"},
]
PRETOKENIZERS = [
    {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Removed", "invert": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
]
TRUNCATION = {
    "direction": "Right",
    "max_length": 9,
    "strategy": "LongestFirst",
    "stride": 0,
}


def tokenizer_json(merges: Sequence[str] = MERGES) -> dict:
    """As OpenAI's, but for the size of its vocabulary."""
    alphabet = _byte_alphabet()
    merged = [merge.replace(" ", "") for merge in merges]
    words = [*alphabet, *(c + "</w>" for c in alphabet), *merged]
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate([*words, *special])}
    return {
        "version": "1.0",
        "truncation": TRUNCATION,
        "padding": None,
        "added_tokens": [_special_token(vocab[token], token) for token in special],
        "normalizer": {"type": "Sequence", "normalizers": NORMALIZERS},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRETOKENIZERS},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<|endoftext|>",
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "vocab": vocab,
            "merges": list(merges),
        },
    }


def _special_token(number: int, token: str) -> dict:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, **plain, "special": True}


def _byte_alphabet() -> list[str]:
    """A visible character for each byte, as GPT-2 has it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]


def write_tokenizer(folder: Path, merges: Sequence[str] = MERGES) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_json(merges)))
    return path


VOCAB = len(tokenizer_json()["model"]["vocab"])


def scrambled(model: nn.Module, seed: int) -> nn.Module:
    """None of its numbers is the neutral one."""

    def fill(path: str, array: mx.array) -> mx.array:
        if path.endswith("logit_scale"):
            return mx.array(2.0)
        if array.ndim > 1 and "positional" not in path:
            return array
        spread = mx.random.uniform(-0.4, 0.4, array.shape)
        return spread + (0 if path.endswith(("bias", "mean", "embedding")) else 1)

    mx.random.seed(seed)
    model.update(tree_map_with_path(fill, model.parameters()))
    return model


def towers(name: str = "mobileclip_s0", size: int = 64) -> tuple[nn.Module, nn.Module]:
    image = scrambled(create_model(name, **IMAGE), 1)
    image.info = replace(image.info, preprocess=replace(image.info.preprocess, size=size))
    text = scrambled(create_model(model_spec(name).text, **TEXT, vocab=VOCAB), 2)
    return image, text


def save(folder: Path, name: str = "mobileclip_s0") -> Path:
    """The folder of a CLIP, as ``ondevice import`` leaves it."""
    return save_clip(
        *towers(name), folder / "clip", tokenizer=write_tokenizer(folder), force=True
    )


def clip(folder: Path, name: str = "mobileclip_s0", **options) -> CLIP:
    words = Tokenizer(write_tokenizer(folder), vocab=VOCAB)
    return CLIP(*towers(name), words, **options)


# Our names -> open_clip's and Apple's; the inverse of what the specs' tables do, written apart.
OPEN_CLIP = (
    (r"^blocks\.", "transformer.resblocks."),
    (r"^norm\.", "ln_final."),
    (r"^projection\.weight$", "text_projection"),
    (r"\.norm(\d)\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)
APPLE = (
    (r"\.block\.mlp\.", ".convffn."),
    (r"\.block\.", "."),
    (r"\.token_mixer\.norm\.", ".token_mixer.norm.rbr_skip."),
    (r"\.identity\.", ".rbr_skip."),
    (r"\.conv_kxk\.", ".rbr_conv."),
    (r"^blocks\.", "transformer."),
    (r"^norm\.", "final_layer_norm."),
    (r"^projection\.weight$", "projection_layer"),
    (r"^token_embedding\.", "embedding_layer."),
    (r"^positional_embedding$", "positional_embedding.pos_embed.pos_embed"),
    (r"(?<=\d)\.norm1\.", ".pre_norm_mha.0."),
    (r"\.attn\.qkv\.", ".pre_norm_mha.1.qkv_proj."),
    (r"\.attn\.proj\.", ".pre_norm_mha.1.out_proj."),
    (r"(?<=\d)\.norm2\.", ".pre_norm_ffn.0."),
    (r"\.mlp\.fc1\.", ".pre_norm_ffn.1."),
    (r"\.mlp\.fc2\.", ".pre_norm_ffn.4."),
)


def published(image: nn.Module, text: nn.Module, form: str) -> dict[str, mx.array]:
    """Both encoders as one checkpoint, in torch's layouts: "open_clip" or "apple"."""
    tower, rows = ("visual.trunk.", OPEN_CLIP) if form == "open_clip" else APPLE_ROWS
    words = "text." if form == "open_clip" else "text_encoder."
    found = {
        tower + key.removeprefix("trunk."): _to_torch(array)
        for key, array in tree_flatten(image.parameters())
    }
    for key, array in tree_flatten(text.parameters()):
        theirs = key
        for pattern, name in rows:
            theirs = re.sub(pattern, name, theirs)
        value = array.T if key == "projection.weight" else _to_torch(array)
        value = value[None, None] if "pos_embed" in theirs else value
        found["logit_scale" if key == "logit_scale" else words + theirs] = value
    return found


APPLE_ROWS = ("image_encoder.model.", APPLE)


def _to_torch(array: mx.array) -> mx.array:
    return mx.contiguous(array.transpose(0, 3, 1, 2)) if array.ndim == 4 else array
