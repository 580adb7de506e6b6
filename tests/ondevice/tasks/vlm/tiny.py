"""A FastVLM of a twelfth of the width, one block a stage, written in any layout."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ....parity import weightgen
from ....parity.cases import Case

TOWER = "model.vision_tower.vision_tower.model."
DIM, LAYERS = 64, 2
LLM = {
    "hidden_size": DIM,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "max_position_embeddings": 512,
}
CONFIG = {
    "model_type": "llava_qwen2",
    "vocab_size": 259,
    "eos_token_id": 258,
    "tie_word_embeddings": True,  # which the file contradicts
    "mm_projector_type": "mlp2x_gelu",
    **LLM,
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

# Apple's name of the encoder's arrays -> timm's, from the table of the checkpoint's authors.
TIMM = (
    (r"^patch_embed\.", "stem."),
    (r"^network\.0\.", "stages.0.blocks."),
    (r"^network\.1\.", "stages.1.downsample."),
    (r"^network\.2\.", "stages.1.blocks."),
    (r"^network\.3\.", "stages.2.downsample."),
    (r"^network\.4\.", "stages.2.blocks."),
    (r"^network\.5\.", "stages.3.downsample."),
    (r"^network\.6\.", "stages.3.pos_emb."),
    (r"^network\.7\.", "stages.3.blocks."),
    (r"^network\.8\.", "stages.4.downsample."),
    (r"^network\.9\.", "stages.4.pos_emb."),
    (r"^network\.10\.", "stages.4.blocks."),
    (r"lkb_reparam", "reparam_conv"),
    (r"convffn\.conv\.", "mlp.conv."),
    (r"convffn\.", "mlp."),
    (r"(layer_scale\w*)$", r"\1.gamma"),
    (r"^conv_exp\.", "final_conv."),
    (r"se\.reduce", "se.fc1"),
    (r"se\.expand", "se.fc2"),
)


def official() -> dict[str, mx.array]:
    """Every array, in Apple's names and torch's layouts."""
    shapes = {k: [_narrow(n) for n in s] for k, s in _encoder_shapes().items()} | _rest()
    arrays = weightgen.state_dict(7, shapes, {})
    for key in arrays:  # so that it is the image that decides, not constants
        if key.startswith(TOWER) and key.endswith(("bias", "running_mean")):
            arrays[key] *= 0.01
    return {k: mx.array(v) for k, v in arrays.items() if not k.endswith("num_batches_tracked")}


def _encoder_shapes() -> dict[str, list[int]]:
    shapes = Case("fastvlm-256").meta["shapes"]
    first = r"(?!network\.(0|2|4|7|10)\.[1-9])"  # of the blocks, only number 0
    return {k: s for k, s in shapes.items() if re.match(re.escape(TOWER) + first, k)}


def _narrow(width: int) -> int:
    return width // 12 if width >= 96 else width


def _rest() -> dict[str, tuple[int, ...]]:
    kv = DIM // LLM["num_attention_heads"] * LLM["num_key_value_heads"]
    layer = {
        "self_attn.q_proj.weight": (DIM, DIM),
        "self_attn.q_proj.bias": (DIM,),
        "self_attn.k_proj.weight": (kv, DIM),
        "self_attn.k_proj.bias": (kv,),
        "self_attn.v_proj.weight": (kv, DIM),
        "self_attn.v_proj.bias": (kv,),
        "self_attn.o_proj.weight": (DIM, DIM),
        "mlp.gate_proj.weight": (LLM["intermediate_size"], DIM),
        "mlp.up_proj.weight": (LLM["intermediate_size"], DIM),
        "mlp.down_proj.weight": (DIM, LLM["intermediate_size"]),
        "input_layernorm.weight": (DIM,),
        "post_attention_layernorm.weight": (DIM,),
    }
    return {
        "model.mm_projector.0.weight": (DIM, 256),
        "model.mm_projector.0.bias": (DIM,),
        "model.mm_projector.2.weight": (DIM, DIM),
        "model.mm_projector.2.bias": (DIM,),
        "model.embed_tokens.weight": (CONFIG["vocab_size"], DIM),
        **{f"model.layers.{i}.{k}": s for i in range(LAYERS) for k, s in layer.items()},
        "model.norm.weight": (DIM,),
        "lm_head.weight": (CONFIG["vocab_size"], DIM),
    }


def renamed(arrays: dict[str, mx.array], *rows: tuple[str, str]) -> dict[str, mx.array]:
    def name(key: str) -> str:
        for pattern, new in rows:
            key = re.sub(pattern, new, key)
        return key

    return {name(key): array for key, array in arrays.items()}


def transformers(arrays: dict[str, mx.array]) -> dict[str, mx.array]:
    def tower(key: str) -> str:
        (name,) = renamed({key.removeprefix(TOWER): arrays[key]}, *TIMM)
        return f"model.vision_tower.timm_model.{name}"

    rest = renamed(
        {k: v for k, v in arrays.items() if not k.startswith(TOWER)},
        (r"^model\.mm_projector\.0", "model.multi_modal_projector.linear_1"),
        (r"^model\.mm_projector\.2", "model.multi_modal_projector.linear_2"),
        (r"^model\.(embed_tokens|layers|norm)", r"model.language_model.\1"),
    )
    inside = [k for k in arrays if k.startswith(TOWER) and not k.endswith("head.proj")]
    return {tower(k): arrays[k] for k in inside} | rest


def mlx_vlm(arrays: dict[str, mx.array]) -> dict[str, mx.array]:
    laid = {
        k: v.transpose(0, 2, 3, 1)
        if v.ndim == 4
        else v.transpose(1, 2, 0)
        if v.ndim == 3
        else v
        for k, v in arrays.items()
    }
    return renamed(
        laid,
        (re.escape(TOWER + "patch_embed."), "vision_tower.vision_model.patch_embed.blocks."),
        (re.escape(TOWER), "vision_tower.vision_model."),
        (r"^model\.mm_projector", "mm_projector"),
        (r"^model\.(embed_tokens|layers|norm)", r"language_model.model.\1"),
        (r"^lm_head", "language_model.lm_head"),
    )


def eight_bits_outside_the_encoder(key: str) -> int:
    return 0 if "vision_tower" in key else 8


def quantized(
    arrays: dict[str, mx.array], bits: Callable[[str], int] = eight_bits_outside_the_encoder
) -> dict[str, mx.array]:
    """mlx-vlm's, with linear layers and 1x1 convolutions in as many bits; 0: as they are."""
    found = {}
    for key, array in mlx_vlm(arrays).items():
        found[key] = array
        pointwise = array.size == array.shape[0] * array.shape[-1] and array.ndim > 1
        if pointwise and key.endswith("weight") and array.shape[-1] % 32 == 0 and bits(key):
            parts = mx.quantize(array, group_size=32, bits=bits(key))
            stem = key.removesuffix(".weight")
            found |= dict(zip((key, f"{stem}.scales", f"{stem}.biases"), parts, strict=True))
    return found


def unpacked(arrays: dict[str, mx.array]) -> dict[str, mx.array]:
    """What ``quantized`` packed in 4 or 8 bits, by the definition: scale * code + bias."""
    found = {k: v for k, v in arrays.items() if not k.endswith((".scales", ".biases"))}
    for key in (k for k in arrays if k.endswith(".scales")):
        stem = key.removesuffix(".scales")
        words, scales, biases = (arrays[f"{stem}.{p}"] for p in ("weight", "scales", "biases"))
        bits = words.shape[-1] // scales.shape[-1]  # as many words as bits make a group of 32
        codes = words[..., None] >> mx.arange(0, 32, bits, dtype=mx.uint32) & (2**bits - 1)
        codes = codes.reshape(*scales.shape, 32).astype(mx.float32)
        groups = codes * scales[..., None] + biases[..., None]
        found[f"{stem}.weight"] = groups.flatten(-2)
    return found


def tokenizer() -> str:
    """Bytes as tokens, and the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bpe = Tokenizer(models.BPE(vocab | {t: 256 + i for i, t in enumerate(SPECIAL)}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(SPECIAL)
    return bpe.to_str()


def write(
    folder: Path,
    arrays: dict[str, mx.array] | None = None,
    config: dict[str, Any] | None = None,
    *,
    shards: int = 1,
) -> Path:
    """A checkpoint's files."""
    arrays = official() if arrays is None else arrays
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    (folder / "tokenizer.json").write_text(tokenizer())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"})
    )
    if shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "pt"})
        return folder
    table = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(arrays.items())[i::shards])
        mx.save_safetensors(str(folder / file), part)
        table |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder


def image(seed: int = 0, height: int = 90, width: int = 120) -> np.ndarray:
    """Patches of random colours."""
    patches = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.kron(patches, np.ones((height // 3, width // 4, 1), np.uint8))
