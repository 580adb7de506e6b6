"""Detectors: transformers' boxes as sets, and what a package does with them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from converters import export, load_package, verify
from converters.export.build import lay_out, rename_inputs, to_graph
from converters.graph.resizing import sample
from converters.verification.sets import paired
from ondevice import create_model, fuse, list_models, model_spec
from ondevice.nn.deformable import anchors, best, grid_sample, rows

from ...parity.dense_cases import DenseCase, pairs
from ...support.lowered import function_of
from ...support.machine import tuned_blas
from .test_dense import scrambled

LIGHT = {
    "num_classes": 5,
    "encoder_dim": 32,
    "encoder_ffn": 48,
    "decoder_dim": 32,
    "decoder_ffn": 40,
    "decoder_depth": 2,
    "heads": 4,
    "queries": 12,
}
SMALL = {**LIGHT, "dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1)}
WINDOWED = {
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 3,
    "heads": 2,
    "out": (1, 3),
    "table": 5,
    "dim": 32,
    "ffn": 48,
    "decoder_depth": 2,
    "self_heads": 4,
    "cross_heads": 4,
    "queries": 12,
    "groups": 2,
}
SIZES = {"rtdetr_r18vd": 96, "rtdetr_v2_r50vd": 96, "rf_detr_nano": 96}
SIZES |= {"light_detr_shvit_nano": 128, "light_detr_efficientvit_m0": 128}
NAMES = list(SIZES)
CONFIGS = {"rt": SMALL, "rf": WINDOWED, "li": LIGHT}


def small(name="rtdetr_r18vd"):
    mx.random.seed(0)
    model = scrambled(create_model(name, **CONFIGS[name[:2]]))
    spec = replace(model.info.preprocess, size=SIZES[name])
    model.info = replace(model.info, preprocess=spec, labels=tuple("abcde"))
    return model


@pytest.mark.slow
@tuned_blas
@pytest.mark.parametrize("name", ["rtdetr_r18vd-640", "rtdetr_v2_r18vd-640"])
@pytest.mark.parametrize("prepare", [lambda model: model, fuse], ids=["plain", "fused"])
def test_boxes_are_those_of_transformers(name, prepare):
    """As sets, of the first image. What is chosen of is within 1e-4 of the spread; a decoder of
    random weights makes thirty times as much of that."""
    case = DenseCase(name)
    model = prepare(case.create())
    maps = model.memory(case.input[:1])
    features, logits, odds, _ = model.proposals(maps)
    chosen = best(logits.max(axis=-1), 300)
    boxes = mx.sigmoid(rows(odds, chosen))
    at = check(case, "enc_topk", "enc_topk_bboxes", rows(logits, chosen), boxes, 1e-4)
    assert (at == np.arange(300)).mean() > 0.98  # and nearly in order
    found = model.decoder(rows(features, chosen), boxes, maps)[-1]
    check(case, "", "pred_boxes", *found, limit=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [lambda model: model, fuse], ids=["plain", "fused"])
def test_boxes_of_a_windowed_transformer_are_those_of_transformers(prepare):
    case = DenseCase("rf_detr-560")
    model = prepare(case.create("rf_detr_base", points=4, num_classes=2))
    found = model.detect(case.input[:1])
    at = check(case, "", "pred_boxes", *found, limit=1e-4)
    assert (at == np.arange(300)).all()


def test_upstream_names_are_taken():
    """Those of the authors' files: stacked projections, thirteen groups, other words."""
    model = small("rf_detr_nano")
    given = {}
    for key, value in tree_flatten(model.parameters()):
        for ours, theirs in UPSTREAM:
            key = re.sub(ours, theirs, key)
        value = value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
        given[key] = value
    for kind in ("weight", "bias"):
        for layer in range(2):
            name = f"transformer.decoder.layers.{layer}.self_attn."
            parts = [given.pop(f"{name}{part}_proj.{kind}") for part in "qkv"]
            given[f"{name}in_proj_{kind}"] = mx.concatenate(parts)
    given["transformer.enc_output.1.weight"] = mx.zeros((32, 32))  # another group's
    assert not {"enc_output.weight", "bbox_embed.layers.0.weights"} & given.keys()
    other = create_model("rf_detr_nano", weights=given, **WINDOWED)
    x = mx.random.uniform(shape=(1, 96, 96, 3))
    assert mx.array_equal(other(x)["coordinates"], model(x)["coordinates"])


UPSTREAM = (
    (r"^(decoder|enc_out)", r"transformer.\1"),
    (r"(enc_output|enc_output_norm|enc_out_\w+_embed)\.", r"\1.0."),
    (r"^backbone\.backbone\.", "backbone.0.encoder.encoder."),
    (r"^backbone\.projector\.layer_norm\.", "backbone.0.projector.stages.0.1."),
    (r"^backbone\.projector\.projector_layer\.", "backbone.0.projector.stages.0.0."),
    (r"bottlenecks\.(\d)\.conv", r"m.\1.cv"),
    (r"stages\.0\.0\.conv", "stages.0.0.cv"),
    (r"(cv\d)\.norm\.", r"\1.bn."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.cross_attn_layer_norm\.", ".norm2."),
    (r"(decoder\.layers\.\d)\.layer_norm\.", r"\1.norm3."),
    (r"(decoder\.layers\.\d)\.mlp\.fc", r"\1.linear"),
    (r"decoder\.layernorm\.", "decoder.norm."),
    (r"self_attn\.o_proj\.", "self_attn.out_proj."),
    (r"reference_point_embed", "refpoint_embed"),
)


def check(case, prefix, name, logits, boxes, limit):
    """Compare with what the case keeps; where each box stands there."""
    logits, boxes = np.array(logits)[0], np.array(boxes)[0]
    wanted = case.arrays[name][0]
    at = pairs(boxes, wanted)
    assert np.abs(boxes - wanted[at]).max() < limit / 5 * case.arrays[f"{name}.std"]
    scores = f"{prefix}_logits".strip("_")
    apart = np.abs(logits.max(axis=-1) - case.arrays[scores][0][at])
    apart /= case.arrays[f"{scores}.std"]
    assert apart.max() < limit
    assert np.median(apart) < limit / 10
    same = logits.argmax(axis=-1) == case.arrays[f"{scores}.class"][0][at]
    assert same.mean() > 0.99
    return at


@pytest.mark.parametrize("name", list_models("light_detr_*"))
def test_a_light_detector_has_as_many_parameters_as_are_listed(name):
    spec = model_spec(name)
    model = spec.build(spec.config)
    model.train()
    count = sum(v.size for _, v in tree_flatten(model.trainable_parameters()))
    assert count == spec.params


@pytest.mark.parametrize("name", NAMES)
def test_fused_gives_the_same(name):
    model, x = small(name), mx.random.uniform(shape=(2, SIZES[name], SIZES[name], 3))
    wanted, found = model(x), fuse(model)(x)
    for key in wanted:
        assert float(mx.abs(wanted[key] - found[key]).max()) < 1e-4


def test_points_are_sampled_between_pixels_and_zero_outside():
    rng = np.random.default_rng(0)
    x = mx.array(rng.normal(size=(2, 5, 7, 3)).astype(np.float32))
    grid = mx.array(rng.uniform(-1.5, 1.5, (2, 4, 6, 2)).astype(np.float32))
    found, wanted = grid_sample(x, grid), sample(x, grid, "zeros")
    assert float(mx.abs(found - wanted).max()) < 1e-5


def test_of_equal_scores_the_first_are_chosen():
    scores = mx.array([[1.0, 3.0, 2.0, 3.0, 3.0]])
    assert best(scores, 4).tolist() == [[1, 3, 4, 2]]


def test_anchors_at_the_edge_are_none():
    odds, valid = anchors([(200, 200), (10, 10)])
    boxes = np.array(mx.sigmoid(odds))
    inside = np.array(valid)[:, 0] == 1
    assert 0 < (~inside).sum() < 1600
    assert (boxes[~inside] == 1).all()
    assert np.allclose(boxes[inside][0, 2:], 0.05, atol=1e-6)
    assert np.allclose(boxes[-1], (0.95, 0.95, 0.1, 0.1), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_package_samples_and_stays_within_five_axes(name):
    function = function_of(small(name))
    graph = lay_out(rename_inputs(to_graph(function), function.input_names), function)
    found = Counter(node.op for node in graph.nodes)
    windowed = name.startswith("rf")
    assert found["Resample"] == 2 * (1 if windowed else 3)  # layers, maps
    assert max(len(value.shape) for value in graph.values.values()) <= 5
    # Of places and weights in each layer, and outputs; windows are cut and joined besides.
    assert found["Transpose"] <= (21 if windowed else 2 * 4 + 2)
    assert not {"Floor", "Gather", "GatherAxis"} & found.keys()


@pytest.mark.parametrize(
    ("name", "precision", "matched"),
    [
        ("rtdetr_r18vd", "float32", 1.0),
        ("rtdetr_r18vd", "float16", 0.9),
        ("light_detr_shvit_nano", "float32", 1.0),
        ("rf_detr_nano", "float32", 1.0),
        # Two candidates of twelve that score alike are chosen in the other order: what each
        # becomes depends on its position. All others overlap by 0.998.
        ("rf_detr_nano", "float16", 0.8),
    ],
)
def test_a_package_finds_the_same_boxes(name, precision, matched, tmp_path):
    model = small(name)
    path = export(model, tmp_path / "boxes.mlpackage", precision=precision)
    package = load_package(path)
    assert package.outputs["coordinates"].dtype == "float32"
    assert package.labels == tuple("abcde")
    report = verify(model, path, model.signature.samples(2), gates={"matched": matched})
    assert report.require().comparisons[0].of_kind["matched"] >= matched


def test_places_are_computed_in_float32(tmp_path):
    """Half precision is a third of a pixel at 640; layers that give them stay as they are."""
    stored = load_package(export(small(), tmp_path / "boxes.mlpackage")).stored()
    makers = {name: op for op in stored.operations for name in op.outputs}
    samples = [op for op in stored.operations if op.type == "resample"]
    assert len(samples) == 6
    for each in samples:
        (name,) = (n for n in each.reads() if n in makers and stored.shapes[n][-1] == 2)
        seen = []
        while makers[name].type in MOVES | {"add", "mul"}:
            seen.append(makers[name].type)
            name = next(n for n in makers[name].reads() if n in makers)
        assert {"add", "mul"} & set(seen)
        assert makers[name].type in ("cast", "sigmoid")  # none on the way, of either kind


MOVES = frozenset({"transpose", "reshape", "split", "slice_by_index"})
KINDS = {"coordinates": "boxes", "confidence": "scores"}


def found_boxes(count=20):
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0.2, 0.5, (1, count, 4)).astype(np.float32)
    scores = rng.uniform(0, 1, (1, count, 3)).astype(np.float32)
    return {"coordinates": boxes, "confidence": scores}


def test_the_order_of_boxes_is_no_error():
    wanted = found_boxes()
    order = np.random.default_rng(1).permutation(20)
    got = {name: array[:, order] for name, array in wanted.items()}
    found, figures = paired(KINDS, wanted, got)
    assert figures == {"matched": 1.0, "alike": 1.0}
    assert all((found[name] == wanted[name]).all() for name in wanted)


@pytest.mark.parametrize("fault", ["a box moved", "another class", "one box for all"])
def test_other_boxes_are(fault):
    wanted = found_boxes()
    got = {name: array.copy() for name, array in wanted.items()}
    if fault == "a box moved":
        got["coordinates"][0, 3, 0] += 0.01
    elif fault == "another class":
        got["confidence"][0, 3] = np.roll(got["confidence"][0, 3], 1)
    else:
        got["coordinates"][:] = got["coordinates"][:, :1]
    _, figures = paired(KINDS, wanted, got)
    assert figures["matched"] < 1
    assert (figures["alike"] == 1) == (fault == "a box moved")  # by a twentieth of its side


def test_what_no_box_is_sure_of_is_judged_by_the_surest():
    wanted = found_boxes()
    wanted["confidence"] *= 0.1
    got = {name: array.copy() for name, array in wanted.items()}
    got["coordinates"][:, :, 2:] *= 2
    assert paired(KINDS, wanted, got)[1] == {"matched": 0.0, "alike": 0.0}
