"""Checkpoints of the authors, open_clip, transformers and mlx-vlm, not only timm's names."""

from __future__ import annotations

import re

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model, model_spec
from ondevice.weights.fit import rename

from ...parity.cases import Case

# timm's name -> the official one; the inverse of what the specs' tables do, written apart.
STAGED = (
    (r"^stages\.0\.blocks\.(\d+)\.", lambda m: f"blocks1.{m[1]}."),
    (
        r"^stages\.([12])\.blocks\.(\d+)\.",
        lambda m: f"blocks{int(m[1]) + 1}.{int(m[2]) + 3}.",
    ),
    (r"\.linear\.", ".l."),
)
SHVIT = (
    *STAGED,
    (r"^stages\.([12])\.downsample\.([01])\.", lambda m: f"blocks{int(m[1]) + 1}.0.{m[2]}."),
    (r"^stages\.([12])\.downsample\.2\.", lambda m: f"blocks{int(m[1]) + 1}.1."),
    (r"^stages\.([12])\.downsample\.3\.", lambda m: f"blocks{int(m[1]) + 1}.2.0."),
    (r"^stages\.([12])\.downsample\.4\.", lambda m: f"blocks{int(m[1]) + 1}.2.1."),
)
EFFICIENTVIT = (
    *STAGED,
    (r"^patch_embed\.conv(\d)\.", lambda m: f"patch_embed.{2 * int(m[1]) - 2}."),
    (r"^stages\.([12])\.downsample\.res1\.", lambda m: f"blocks{int(m[1]) + 1}.0."),
    (r"^stages\.([12])\.downsample\.patchmerge\.", lambda m: f"blocks{int(m[1]) + 1}.1."),
    (r"^stages\.([12])\.downsample\.res2\.", lambda m: f"blocks{int(m[1]) + 1}.2."),
    (r"\.conv\.weight$", ".c.weight"),
)

DAVIT = (
    (r"^stem\.conv\.", "patch_embeds.0.proj."),
    (r"^stem\.norm\.", "patch_embeds.0.norm."),
    (r"^stages\.(\d)\.downsample\.conv\.", r"patch_embeds.\1.proj."),
    (r"^stages\.(\d)\.downsample\.norm\.", r"patch_embeds.\1.norm."),
    (r"^stages\.(\d)\.blocks\.", r"main_blocks.\1."),
    (r"\.cpe1\.", ".cpe.0."),
    (r"\.cpe2\.", ".cpe.1."),
    (r"^head\.norm\.", "norms."),
    (r"^head\.fc\.", "head."),
)


def fastvit(*parts: str) -> tuple[tuple[str, str], ...]:
    """``parts``: what Apple's one flat list holds, with timm's names."""
    names = [part.replace(".", r"\.") for part in parts]
    return (
        *((rf"^{name}\.", f"network.{i}.") for i, name in enumerate(names)),
        (r"^stem\.", "patch_embed."),
        (r"^final_conv\.", "conv_exp."),
        (r"^(network\.\d+)\.pos_enc\.", r"\1.pe."),
        (r"proj\.0\.reparam_conv\.", "proj.0.lkb_reparam."),
        (r"\.conv_kxk\.", ".rbr_conv."),
        (r"\.conv_scale\.", ".rbr_scale."),
        (r"\.identity\.", ".rbr_skip."),
        (r"\.large_conv\.", ".lkb_origin."),
        (r"\.mlp\.", ".convffn."),
        (r"\.se\.fc1\.", ".se.reduce."),
        (r"\.se\.fc2\.", ".se.expand."),
        (r"\.gamma$", ""),
        (r"^head\.fc\.", "head."),
    )


def stages(n: int, positions: int) -> list[str]:
    """Parts of ``n`` stages, from stage ``positions`` on with an encoding of them."""
    parts = ["stages.0.blocks"]
    for i in range(1, n):
        parts += [f"stages.{i}.downsample"]
        parts += [f"stages.{i}.pos_emb"] if i >= positions else []
        parts += [f"stages.{i}.blocks"]
    return parts


CASES = {
    "davit_tiny-224": DAVIT,
    "shvit_s1-224": SHVIT,
    "shvit_s4-256": SHVIT,
    "efficientvit_m0-224": EFFICIENTVIT,
    "efficientvit_m5-224": EFFICIENTVIT,
    "fastvit_t8-256": fastvit(*stages(4, positions=4)),
    "fastvit_sa12-256": fastvit(*stages(4, positions=3)),
    "fastvit_mci0-256": fastvit(*stages(4, positions=3)),
}


def official(name: str, rows: tuple) -> str:
    for pattern, replacement in rows:
        name = re.sub(pattern, replacement, name)
    return name


def renamed(names, model: str) -> list[str]:
    return list(rename(dict.fromkeys(names, mx.zeros(1)), model_spec(model)))


@pytest.mark.parametrize("name", CASES)
def test_official_names_mean_the_same_as_those_of_timm(name):
    case = Case(name)
    timm = [k for k in case.meta["shapes"] if not k.endswith("num_batches_tracked")]
    theirs = [official(k, CASES[name]) for k in timm]
    assert len({*timm} & {*theirs}) < len(timm) / 5
    assert renamed(theirs, case.model) == renamed(timm, case.model)


@pytest.mark.parametrize("name", CASES)
def test_our_own_names_stay(name):
    ours = renamed(Case(name).meta["shapes"], Case(name).model)
    assert renamed(ours, Case(name).model) == ours


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("image_encoder.model.", ["text_encoder.embedding_layer.weight", "logit_scale"]),
        ("visual.trunk.", ["text.token_embedding.weight", "visual.head.x", "logit_scale"]),
        ("module.visual.trunk.", ["module.text.positional_embedding"]),
        ("model.vision_tower.vision_tower.model.", ["lm_head.weight", "model.norm.weight"]),
        ("model.vision_tower.timm_model.", ["model.multi_modal_projector.linear_1.bias"]),
        ("vision_tower.vision_model.", ["language_model.model.norm.weight"]),
    ],
)
def test_a_vision_tower_is_taken_out_of_what_surrounds_it(prefix, others):
    names = ["stem.0.conv_kxk.0.conv.weight", "network.3.1.convffn.fc1.bias"]
    inside = [prefix + name for name in names]
    assert renamed([*others, *inside], "fastvit_mci0") == renamed(names, "fastvit_mci0")


def test_the_merged_names_of_fastvlm_fill_the_encoder_however_they_are_written():
    case = Case("fastvlm-256")
    tower = "model.vision_tower.vision_tower.model."
    names = [k for k in case.meta["shapes"] if not k.endswith("num_batches_tracked")]
    ours = set(renamed(names, "fastvithd")) - {"head.weight"}
    model = create_model("fastvithd")
    assert ours == dict(tree_flatten(model.parameters())).keys()
    as_mlx_vlm = [
        k.replace(tower + "patch_embed.", tower + "patch_embed.blocks.").replace(
            tower, "vision_tower.vision_model."
        )
        for k in names
    ]
    assert renamed(as_mlx_vlm, "fastvithd") == renamed(names, "fastvithd")


def test_a_projection_stored_as_a_bare_matrix_fills_a_head_without_bias():
    case = Case("fastvit_mci0-256")
    weights = case.weights()
    head = weights.pop("head.fc.weight")
    del weights["head.fc.bias"]
    theirs = {f"image_encoder.model.{k}": v for k, v in weights.items()}
    theirs |= {"image_encoder.model.head.proj": head.T, "logit_scale": mx.array(4.6)}
    model = create_model("fastvit_mci0", weights=theirs)
    assert mx.array_equal(model.head.weight, head)
    assert "bias" not in model.head


def test_a_classifier_fills_a_backbone():
    case = Case("fastvit_t8-256")
    model = create_model(case.model, weights=case.weights(), num_classes=0)
    assert "head" not in model
