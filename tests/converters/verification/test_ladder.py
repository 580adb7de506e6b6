"""The ladder from the model to the package: what passes, what fails, and where it says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from PIL import Image

from converters import export, export_module, load_package, rounding, verify
from converters.coreml import lowerings as lowerings, registry
from converters.verification.deviations import Deviation, deviations, first_jump
from converters.verification.metrics import EXACT, compare
from converters.verification.verify import GATES
from ondevice import create_model
from ondevice.errors import ConfigError, GateError
from ondevice.signature.samples import sample_images
from tests.support.mil import mb


def damaged(package, folder, weight):
    """A copy of the package with one stored weight's bytes zeroed."""
    copy = folder / "damaged.mlpackage"
    shutil.copytree(package.path, copy)
    opened = load_package(copy)
    blob = next(op.blobs[0] for op in opened.stored().everything if op.name == weight)
    with blob.file.open("r+b") as stream:
        stream.seek(blob.offset)
        stream.write(bytes(blob.bytes))
    return load_package(copy)


def test_every_step_passes_its_gate(report):
    float32, float16, saved = report.require().steps
    assert [s.name for s in report.steps] == ["package float32", "package float16", "as saved"]
    assert float32.comparisons[0].relative_error <= 1e-5 == float32.gates["relative_error"]
    assert float16.comparisons[0].psnr_db >= 55 == float16.gates["psnr_db"]
    assert saved.comparisons[0].top1_agreement == 1
    assert saved.gates == {"psnr_db": 55, "top1_agreement": 0.998}


def test_what_was_saved_is_what_a_fresh_export_gives(report):
    _, float16, saved = report.steps
    assert saved.comparisons == float16.comparisons
    assert saved.package_bytes == pytest.approx(float16.package_bytes, rel=0.01)


def test_every_layer_is_compared_by_name(report, package):
    trail = report.as_saved.deviations
    names = {d.name for d in trail}
    assert len(trail) > 0.9 * len(package.operations)
    assert {"patch_embed_0", "stages_1_blocks_0_conv", "logits"} <= names
    assert 40 < min(d.after_db for d in trail) < 90


def test_the_float32_packages_layers_are_held_to_those_of_mlx(report, nano):
    trail = report.steps[0].deviations
    assert len(trail) >= 62  # every convolution
    assert min(d.after_db for d in trail) > 120


def test_a_wrong_lowering_fails_the_first_step_and_is_named(monkeypatch, tmp_path):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)
    ).eval()
    monkeypatch.setitem(registry._LOWERINGS, "Relu", lambda node, x: mb.sigmoid(x=x))
    path = export_module(net, mx.zeros((1, 16, 16, 3)), tmp_path / "net.mlpackage")
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    first = verify(net, path, [x], baselines=True).steps[0]
    assert not first.passed
    assert (first.jump.op, first.jump.name) == ("conv", "layers_4")  # reads the relu


def test_the_steps_before_are_float_for_a_model_that_has_a_recipe_too(tmp_path):
    model = create_model("shvit_nano.cifar10")
    model.info = replace(model.info, recipe=rounding("palette4").prepare(model, []))
    package = load_package(export(model, tmp_path / "nano.mlpackage", golden=False))
    assert package.is_compressed
    report = verify(model, package, sample_images(96)[:2], baselines=True)
    float32, float16, _ = report.steps
    assert float32.passed
    assert float16.passed
    assert float32.package_bytes > 1.9 * float16.package_bytes > 6 * package.size


def test_without_the_ladder_there_is_one_step(nano, package):
    (step,) = verify(nano, package, sample_images(96)[:1]).steps
    assert step.name == "as saved"
    assert step.deviations == ()


def test_other_weights_fail_only_as_saved_and_the_layer_is_named(failed):
    assert [step.passed for step in failed.steps] == [True, True, False]
    jump = failed.as_saved.jump
    assert (jump.op, jump.name) == ("conv", "stages_1_blocks_0_conv")
    assert jump.before_db > 60 > 50 > jump.after_db
    assert failed.notes == ("the package was made from other weights than this model has",)
    with pytest.raises(GateError, match="as saved: logits psnr_db"):
        failed.require()


def test_a_weight_changed_on_disk_is_found(nano, package, climbed, tmp_path):
    weight = "stages_2_blocks_1_ffn_m_pw1_weight"
    report = verify(
        nano, damaged(package, tmp_path, weight), sample_images(96)[:2], baselines=True
    )
    assert [step.passed for step in report.steps] == [True, True, False]
    assert report.as_saved.jump.name == weight.removesuffix("_weight")


def test_the_first_jump_is_not_the_first_rounding():
    trail = [
        Deviation("a", "add", EXACT, 75.0),  # the rounding of exact input
        Deviation("b", "conv", 75.0, 64.0),
        Deviation("c", "mul", 64.0, 20.0),
        Deviation("d", "mul", 20.0, -10.0),
    ]
    assert first_jump(trail, "float16").name == "c"
    assert first_jump(trail[:2], "float16").name == "b"  # none is tenfold: the largest
    assert first_jump([], "float16") is None


def test_the_worst_image_is_named(nano, package, tmp_path):
    calm = Image.new("RGB", (96, 96), (90, 120, 90))
    paths = []
    for name, picture in (("a.png", calm), ("b.png", Image.fromarray(sample_images(96)[0]))):
        picture.save(tmp_path / name)
        paths.append(tmp_path / name)
    (step,) = verify(nano, package, paths).steps
    rows = {row.image: row.psnr_db for row in step.comparisons[0].per_image}
    assert rows.keys() == {"a.png", "b.png"}
    assert step.worst_image == min(rows, key=rows.get)


def test_nan_is_a_failure_and_the_worst_there_is(nano, package, monkeypatch):
    images = sample_images(96)[:3]
    predict = package.predict

    def broken(inputs, **options):
        result = predict(inputs, **options)
        if inputs["image"] is images[1]:
            result["logits"] = result["logits"] * np.nan
        return result

    monkeypatch.setattr(package, "predict", broken)
    report = verify(nano, package, images)
    assert report.as_saved.worst_image == "image 1"
    assert "as saved: logits has or lacks NaN or infinite values, unlike MLX" in report.failures
    json.dumps(report.to_dict(), allow_nan=False)


def test_gates_can_be_replaced_one_by_one(nano, package):
    image = sample_images(96)[:1]
    strict = verify(nano, package, image, gates={"psnr_db": 90, "cosine": 0.5})
    assert strict.gates == {"psnr_db": 90, "top1_agreement": 0.998, "cosine": 0.5}
    assert not strict.passed
    assert verify(nano, package, image, gates={"psnr_db": 30}).passed
    with pytest.raises(ConfigError, match="no gate accuracy; there are psnr_db"):
        verify(nano, package, image, gates={"accuracy": 1})


def test_a_compressed_package_is_held_to_the_models_decisions(nano, package):
    metadata = package.saved.spec.description.metadata.userDefined
    metadata["ondevice.recipe"] = "{}"
    try:
        report = verify(nano, package, sample_images(96)[:1])
    finally:
        del metadata["ondevice.recipe"]
    assert report.gates == GATES["compressed, few images"]
    assert report.comparisons[0].spread_db is None
    assert "cannot show whether logits tells images apart: give 8 or more" in report.notes[0]


def test_any_module_climbs_the_ladder(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Conv2d(8, 4, 3)).eval()
    path = export_module(net, mx.zeros((1, 16, 16, 3)), tmp_path / "net.mlpackage")
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    report = verify(net, path, [x], baselines=True)
    assert len(report.require().steps) == 3
    assert report.steps[1].comparisons[0].output == "output"


def test_a_model_of_plain_levels_climbs_the_ladder(tmp_path):
    """FastVLM's: 1/255 goes into the first convolution, which then takes the levels."""
    model = create_model("shvit_nano.cifar10")
    plain = replace(model.info.preprocess, mean=(0, 0, 0), std=(1, 1, 1))
    model.info = replace(model.info, preprocess=plain)
    path = export(model, tmp_path / "x.mlpackage")
    assert len(verify(model, path, sample_images(96)[:1], baselines=True).require().steps) == 3


def test_a_float32_package_needs_no_float16_step(nano, tmp_path):
    path = export(nano, tmp_path / "x.mlpackage", precision="float32", outputs=["embedding"])
    report = verify(nano, path, sample_images(96)[:1], baselines=True)
    assert [s.name for s in report.require().steps] == ["package float32", "as saved"]
    assert report.as_saved.gates["relative_error"] == 1e-5


def test_values_stored_scaled_by_a_power_of_two_are_the_same_values(package, monkeypatch):
    walk = package.walk

    def scaled(inputs):
        for name, value in walk(inputs):
            yield name, value / 64 if name == "patch_embed_2" else value

    given = {"image": sample_images(96)[0]}
    other = load_package(package.path)
    monkeypatch.setattr(other, "walk", scaled)
    found = {d.name: d.after_db for d in deviations(other, package, given)}
    assert set(found.values()) == {EXACT}


def test_compare_knows_exact_broken_and_empty_arrays():
    ones = np.ones(4, np.float32)
    assert compare(ones, ones) == EXACT
    assert compare(ones, ones * np.nan) == 0
    assert compare(np.float32([-np.inf, 1]), np.float32([-4e4, 1])) == EXACT  # a mask
    assert compare(ones, ones * 0.9) == pytest.approx(20, abs=1e-5)


# What is not this model's package


def test_other_labels_fail(nano, package):
    model = create_model(nano.info.name)
    model.info = _relabelled(nano.info)
    report = verify(model, package, sample_images(96)[:1])
    assert report.problems == ("class 3 is 'cat' in the package and 'tiger' in the model",)
    assert not report.passed


def _relabelled(info):
    labels = list(info.labels)
    labels[3] = "tiger"
    return replace(info, labels=tuple(labels))


def test_a_package_of_other_outputs_or_inputs_is_one_line(nano, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3)).eval()
    x = mx.zeros((1, 16, 16, 3))
    path = export_module(net, x, tmp_path / "a.mlpackage", output_names=["heat"])
    with pytest.raises(ConfigError, match=r"a\.mlpackage gives heat, which shvit_nano"):
        verify(nano, path, sample_images(96))
    path = export_module(net, x, tmp_path / "b.mlpackage", output_names=["logits"])
    with pytest.raises(ConfigError, match=r"takes input: array float16 .*; shvit_nano"):
        verify(nano, path, sample_images(96))
