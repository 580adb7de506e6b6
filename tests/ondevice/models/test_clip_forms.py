"""Every MobileCLIP from one file with both encoders, as Apple and open_clip write it."""

from __future__ import annotations

import re

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model, list_models, model_spec
from ondevice.models.clip_text import example_tokens

from ...support import clips

# Our names of the vision transformer -> Apple's, written apart from the spec's table. Those
# of FastViT are in test_official_names.py.
APPLE_VIT = (
    (r"\.patch_embed\.([01])\.conv\.", r".patch_emb.\1.block.conv."),
    (r"\.patch_embed\.([01])\.bn\.", r".patch_emb.\1.block.norm."),
    (r"\.patch_embed\.2\.", ".patch_emb.2.block.conv."),
    (r"\.pos_embed$", ".pos_embed.pos_embed.pos_embed"),
    (r"model\.norm\.", "model.post_transformer_norm."),
    (r"model\.blocks\.", "model.transformer."),
    (r"\.norm1\.", ".pre_norm_mha.0."),
    (r"\.attn\.qkv\.", ".pre_norm_mha.1.qkv_proj."),
    (r"\.attn\.proj\.", ".pre_norm_mha.1.out_proj."),
    (r"\.norm2\.", ".pre_norm_ffn.0."),
    (r"\.mlp\.fc1\.", ".pre_norm_ffn.1."),
    (r"\.mlp\.fc2\.", ".pre_norm_ffn.4."),
    (r"\.head\.weight$", ".classifier.proj"),
)


def sizes(name: str) -> dict:
    """As many stages as published, few channels, a block each."""
    common = {"num_classes": 16, "head_bias": False}
    if model_spec(name).family == "vit":
        return common | {"embed_dim": 64, "depth": 1, "heads": 2}
    n = len(model_spec(name).config.depth)
    return common | {"embed_dim": (32, 32, 64, 64, 64)[:n], "depth": (1,) * n}


def in_apples_names(key: str, array: mx.array) -> tuple[str, mx.array]:
    if key.startswith("image_encoder."):
        for pattern, name in APPLE_VIT:
            key = re.sub(pattern, name, key)
    array = array.T if key.endswith("classifier.proj") else array
    return key, array[None, None] if key.endswith("pos_embed.pos_embed") else array


@pytest.mark.parametrize("form", ["apple", "open_clip"])
@pytest.mark.parametrize("name", list_models("mobileclip*"))
def test_both_encoders_come_out_of_one_file(name, form):
    image = clips.scrambled(create_model(name, **sizes(name)), 1)
    text_name, text_sizes = model_spec(name).text, clips.TEXT | {"vocab": 99}
    text = clips.scrambled(create_model(text_name, **text_sizes), 2)
    file = clips.published(image, text, form)
    if form == "apple" and model_spec(name).family == "vit":
        file = dict(in_apples_names(k, v) for k, v in file.items())
    found = create_model(name, weights=file, **{**sizes(name), "head_bias": True})
    wanted = dict(tree_flatten(image.parameters()))
    assert "bias" not in found.trunk.head
    for key, array in tree_flatten(found.parameters()):
        assert mx.array_equal(array, wanted.pop(key)), key
    assert not wanted
    ids = example_tokens(text.config, texts=2)
    assert mx.array_equal(create_model(text_name, weights=file, **text_sizes)(ids), text(ids))
