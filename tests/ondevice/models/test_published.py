"""Our lists of checkpoints say what timm and open_clip, which publish them, say."""

from __future__ import annotations

import pytest

from ondevice import model_spec

from ...parity import published
from ...support.names import image_encoders

GOLDEN = published.golden()
OTHERS = {"shvit_nano", "fastvithd"}
VARIANTS = [n for n in image_encoders() if n not in OTHERS]


@pytest.mark.parametrize("name", VARIANTS)
def test_timm_lists_the_same_checkpoints(name):
    theirs = {t: cfg for t, cfg in GOLDEN["timm"].items() if t.partition(".")[0] == name}
    ours = {f"{name}.{c.tag}": c for c in model_spec(name).checkpoints}
    assert ours.keys() == theirs.keys()
    for tag, cfg in theirs.items():
        mine = ours[tag].preprocess or model_spec(name).preprocess
        assert mine.size == cfg["input_size"][1]
        assert (list(mine.mean), list(mine.std)) == (cfg["mean"], cfg["std"])
        assert mine.crop_mode == (cfg["crop_mode"] or "center")
        classes = {**model_spec(name).config.to_dict(), **ours[tag].config}["num_classes"]
        assert classes == cfg["num_classes"]
        assert ours[tag].license == cfg["license"] or "licence" in ours[tag].note
        assert ours[tag].repo == cfg["hf_hub_id"]
        if not ours[tag].note:
            assert (mine.crop_pct, mine.interpolation) == (
                cfg["crop_pct"],
                cfg["interpolation"],
            )


@pytest.mark.parametrize("name", published.OPEN_CLIP)
def test_encoders_are_configured_as_in_open_clip(name):
    theirs, image = GOLDEN["open_clip"][name], model_spec(name)
    ours, text = model_spec(image.text).config, theirs["text"]
    assert (ours.width, ours.heads, ours.depth) == (
        text["width"],
        text["heads"],
        text["layers"],
    )
    assert (ours.context, ours.vocab) == (text["context_length"], text["vocab_size"])
    assert ours.causal != text["no_causal_mask"]
    assert ours.eps == text.get("norm_kwargs", {}).get("eps", 1e-5)
    is_tanh = text.get("act_kwargs") == {"approximate": "tanh"}
    assert ours.act == ("gelu_tanh" if is_tanh else "gelu")
    assert ours.pool == {"argmax": "end"}.get(*[text.get("pool_type", "argmax")] * 2)
    assert ours.projection_bias == text.get("proj_bias", False)
    assert ours.sigmoid == (theirs["logit_bias"] is not None)
    assert (ours.tokens == "clip") == ("tokenizer_kwargs" not in text)
    config = image.config
    assert ours.embed_dim == (config.num_classes or config.embed_dim) == theirs["embed_dim"]
    tag = theirs["tags"][image.checkpoints[0].tag]
    mine = image.preprocess
    assert (list(mine.mean), list(mine.std)) == (tag["mean"], tag["std"])
    assert mine.interpolation == tag["interpolation"]
    modes = {"shortest": "center", "squash": "squash"}
    assert (mine.crop_mode, mine.crop_pct) == (modes[tag["resize_mode"]], 1)
    assert image.checkpoints[0].repo == tag["hf_hub"].strip("/")
    assert mine.size == theirs["image_size"]
