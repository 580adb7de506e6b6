"""A picture that goes in as an array: normalized outside, float32 at the border."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from converters import export, load_package, verify
from converters.compress.calibrate import arrays_of
from converters.compress.float16 import _examples
from converters.coreml.loaded import Feature
from ondevice import create_model, preprocess
from ondevice.cli import run
from ondevice.errors import ConfigError, PackageError
from ondevice.image.preprocess import normalize
from ondevice.signature.samples import sample_images
from ondevice.tasks.vlm import load_vision
from ondevice.weights.output import folder_bytes

from ...ondevice.tasks.vlm import tiny
from ...support.lowered import function_of

NANO, TOKENS = "shvit_nano.cifar10", "image_features"


def classifier(folder):
    return create_model(NANO)


def fastvithd(folder):
    return load_vision(tiny.write(folder / "vlm")).exportable()


# A model, how it is exported, the outputs' shapes, and how many results are cast to float32.
MODELS = {
    "classifier": (classifier, {"size": 96}, {"logits": (1, 10)}, 2),
    "fastvithd": (
        fastvithd,
        {"size": 128, "outputs": [TOKENS]},
        {TOKENS: (1, 4, 256)},
        3,  # to a norm and back: what new weights give it is 1e-6
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    """A model, its two packages by precision and input, and what is expected of them."""
    build, options, *expected = MODELS[request.param]
    folder = tmp_path_factory.mktemp("array")
    model = build(folder)
    packages = {
        (precision, form): load_package(
            export(
                model,
                folder / f"{precision}-{form}.mlpackage",
                precision=precision,
                input=form,
                **options,
            )
        )
        for precision, form in (
            ("float32", "image"),
            ("float32", "array"),
            ("float16", "array"),
        )
    }
    return model, options["size"], packages, expected


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_numbers_are_float32_at_the_border(case, precision):
    _, size, packages, (outputs, _) = case
    package = packages[precision, "array"]
    wanted = Feature("images", "array", (1, 3, size, size), "float32")
    assert package.inputs == {"images": wanted}
    arrays = {n: f for n, f in package.outputs.items() if f.kind == "array"}
    assert arrays == {n: Feature(n, "array", shape, "float32") for n, shape in outputs.items()}


def test_inside_is_half_precision_and_no_normalization(case):
    _, _, packages, (_, casts) = case
    package = packages["float16", "array"]
    assert Counter(package.operations)["cast"] == 1 + casts
    assert package.operations[:2] == ["cast", "conv"]
    assert packages["float32", "array"].operations[0] == "conv"
    assert {w.format for w in package.weights.values() if w.size > 100} == {"fp16"}


def test_the_numbers_are_those_of_a_package_that_takes_an_image(case):
    _, size, packages, (outputs, _) = case
    for levels in sample_images(size):
        a = packages["float32", "image"].predict({"image": levels})
        b = packages["float32", "array"].predict({"images": levels})
        for name in outputs:
            assert np.abs(a[name] - b[name]).max() <= 1e-5 * np.abs(a[name]).max()


def test_a_photo_levels_and_their_numbers_are_the_same_to_it(case):
    model, size, packages, (outputs, _) = case
    package = packages["float16", "array"]
    photo = Image.fromarray(np.tile(sample_images(size)[2], (3, 4, 1)))
    numbers = np.array(preprocess(photo, package.preprocess)).transpose(0, 3, 1, 2)
    assert package.preprocess == replace(model.info.preprocess, size=size)
    levels = package.resize_and_crop(photo)
    a, b = (package.predict({"images": x}) for x in (Image.fromarray(levels), numbers))
    for name in outputs:
        assert np.abs(a[name] - b[name]).max() <= 1e-4 * np.abs(b[name]).max()
    with pytest.raises(PackageError, match=r"is an image of shape \[\d+, \d+, 3\]; given"):
        package.predict({"images": sample_images(size // 2)[0]})


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_verify_passes_and_can_fail(case, precision):
    model, size, packages, _ = case
    package = packages[precision, "array"]
    assert verify(model, package, sample_images(size), baselines=True).require().passed
    wrong = load_package(package.path)
    wrong.preprocess = replace(package.preprocess, mean=(0.3, 0.2, 0.1))  # what callers read
    assert not verify(model, wrong, sample_images(size)).passed


def test_the_contract_says_what_the_numbers_must_be(case):
    model, size, packages, _ = case
    package = packages["float16", "array"]
    said = package.metadata
    keys = ("ondevice.input", "ondevice.layout", "ondevice.colors")
    assert [said[key] for key in keys] == ["array", "NCHW", "RGB"]
    assert "com.apple.coreml.model.preview.type" not in said
    contract = json.loads(said["ondevice.preprocess"])
    spec = model.info.preprocess
    assert (contract["mean"], contract["std"]) == (list(spec.mean), list(spec.std))
    (declared,) = package.saved.spec.description.input
    mean, std = (", ".join(f"{x:g}" for x in v) for v in (spec.mean, spec.std))
    line = f"RGB image, (1, 3, {size}, {size}), as (pixels / 255 - [{mean}]) / [{std}]"
    assert declared.shortDescription == line


def test_ranges_are_measured_on_normalized_numbers():
    model = create_model(NANO)
    function = function_of(model, input="array")
    levels = sample_images(96)[0]
    ((found,),) = arrays_of(function, [levels])
    np.testing.assert_array_equal(
        found, np.array(normalize(mx.array(levels)[None], model.info.preprocess))
    )
    (pattern,) = _examples(function)
    assert 1 < np.abs(pattern).max() < 3  # of levels it would be 255


def test_compressed_to_a_budget(tmp_path):
    model, samples = create_model(NANO), [p for s in (96, 128) for p in sample_images(s)]
    path = export(
        model, tmp_path / "x.mlpackage", input="array", budget=500_000, calibration=samples
    )
    assert folder_bytes(path) <= 500_000
    assert verify(model, path, sample_images(96)).passed


def test_several_sizes(tmp_path):
    model = create_model(NANO)
    path = export(model, tmp_path / "x.mlpackage", input="array", size=[64, 96], target="iOS18")
    package = load_package(path)
    photo = Image.fromarray(sample_images(200)[1])
    for size in (64, 96):
        (given,) = package.features("input", f"size_{size}").values()
        assert given.shape == (1, 3, size, size)
        name = f"size_{size}"
        levels = package.resize_and_crop(photo, function=name)
        assert "logits" in package.predict({"images": levels}, function=name)


def test_only_an_array_of_a_picture_is_taken_for_one(case):
    package = case[2]["float16", "array"]
    for shape in ((3, 96, 96), (1, 4, 96, 96), (2, 3, 96, 96), ()):
        feature = Feature("x", "array", shape, "float32")
        assert package.as_image(feature) is feature
    numbers = package.inputs["images"]
    assert package.as_image(numbers).kind == "image"
    assert case[2]["float32", "image"].as_image(numbers) is numbers


def test_the_commands_take_it(tmp_path, capsys):
    path = tmp_path / "x.mlpackage"
    assert run(["export", NANO, "--input", "array", "--out", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == "images"
    assert run(["verify", str(path)]) == 0
    capsys.readouterr()
    assert run(["inspect", str(path)]) == 0
    assert "input   images: array float32 [1, 3, 96, 96]" in capsys.readouterr().out


def test_another_word_is_one_line(tmp_path, capsys):
    out = tmp_path / "x.mlpackage"
    assert run(["export", NANO, "--input", "tensor", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'tensor' is not one of 'image', 'array'" in error
    with pytest.raises(ConfigError, match="no input tensor; there are image, array"):
        export(create_model(NANO), out, input="tensor")
    assert not list(tmp_path.iterdir())
