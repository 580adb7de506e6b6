"""Packages that are broken in ways that figures alone do not show, or show too little of."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from coremltools.proto import Model_pb2
from PIL import Image, ImageFilter

from converters import export, export_module, load_package, verify
from converters.compress.recipe import CompressionRecipe, Rule
from converters.verification.stored_weights import likeness
from ondevice import create_model
from ondevice.errors import ConfigError
from ondevice.signature.samples import sample_images

MODELS = ("shvit_nano.cifar10", "shvit_nano.flowers")
OUTPUTS = ("logits", "embedding")
HONEST = ("int8", "palette6", "palette4", "w8a8")
MODEL = "Data/com.apple.CoreML/model.mlmodel"


def scenes(count, size=96, seed=0):
    """Pictures of coloured shapes before a sky and a ground: unlike each other, smooth."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        top, bottom = rng.integers(0, 256, (2, 3))
        slope = np.linspace(0, 1, size)[:, None, None] ** rng.uniform(0.5, 2)
        picture = np.broadcast_to(top * (1 - slope) + bottom * slope, (size, size, 3)).copy()
        y, x = np.mgrid[:size, :size]
        for _ in range(rng.integers(1, 4)):
            cx, cy = rng.uniform(0.2, 0.8, 2) * size
            rx, ry = rng.uniform(0.1, 0.35, 2) * size
            inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
            picture[inside] = rng.integers(0, 256, 3) + rng.normal(0, 12, (inside.sum(), 1))
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        found.append(np.asarray(image.filter(ImageFilter.GaussianBlur(0.7))))
    return found


def photos(name, part, count):
    """Photos of the kind that a shipped model knows, or else scenes."""
    root = Path(os.environ.get("ONDEVICE_DATA", "nowhere"))
    if "flowers" in name and (root / "flower_photos").is_dir():
        found = sorted((root / "flower_photos" / part).rglob("*.jpg"))
        return [found[i * len(found) // count] for i in range(count)]
    held = root / "cifar10" / ("test.npz" if part == "val" else "train.npz")
    if "cifar10" in name and held.is_file():
        with np.load(held) as files:
            ends, data = files["offsets"], files["jpeg"].tobytes()
        chosen = [i * (len(ends) - 1) // count for i in range(count)]
        return [Image.open(io.BytesIO(data[ends[i] : ends[i + 1]])) for i in chosen]
    return scenes(count, seed=part == "val")


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    """A shipped model, images, and its honest packages by recipe."""
    name = request.param
    model, folder = create_model(name), tmp_path_factory.mktemp("honest")
    calibration = photos(name, "train", 32)
    packages = {}
    for recipe in HONEST:
        path = folder / f"{recipe}.mlpackage"
        export(model, path, recipe=recipe, outputs=OUTPUTS, calibration=calibration)
        packages[recipe] = load_package(path)
    return model, photos(name, "val", 12), packages


@pytest.mark.parametrize("recipe", HONEST)
def test_honest_recipes_pass(case, recipe):
    model, images, packages = case
    report = verify(model, packages[recipe], images).require()
    assert report.notes == ()
    size = model.info.preprocess.size
    assert verify(model, packages[recipe], sample_images(size)).passed


def seen_otherwise(change):
    """A package whose image is changed before it sees it."""
    return lambda predict: (
        lambda inputs, **kw: predict({"image": change(inputs["image"])}, **kw)
    )


def swapped(image):
    return np.ascontiguousarray(image[..., ::-1])


def normalized_by_halves(image):
    """What a package with mean and std 0.5 would see, for one of ImageNet's."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return np.clip(((image / 255 - 0.5) / 0.5 * std + mean) * 255, 0, 255).astype(np.uint8)


def constant(predict):
    kept = []

    def same(inputs, **options):
        kept.append(predict(inputs, **options))
        return kept[0]

    return same


def late(predict):
    """What belongs to the image before."""
    kept = [None]

    def last(inputs, **options):
        kept.append(predict(inputs, **options))
        return kept[-2] or kept[-1]

    return last


BROKEN_OUTPUTS = {
    "swapped channels": seen_otherwise(swapped),
    "wrong normalization": seen_otherwise(normalized_by_halves),
    "levels from 0 to 1": seen_otherwise(lambda image: image // 255),
    "constant": constant,
    "another image's": late,
}


@pytest.mark.parametrize("fault", BROKEN_OUTPUTS)
def test_outputs_that_are_not_the_images_own_fail(case, fault, monkeypatch):
    model, images, packages = case
    package = packages["palette4"]
    monkeypatch.setattr(package, "predict", BROKEN_OUTPUTS[fault](package.predict))
    report = verify(model, package, images)
    assert not report.passed
    low = [c.spread_db for c in report.comparisons]
    assert max(low) < 6, "every output is far off, not one by chance"


def permuted(model):
    layer = model.stages[1].blocks[0].ffn.m.pw1.conv
    order = np.random.default_rng(0).permutation(layer.weight.shape[0])
    layer.weight = layer.weight[mx.array(order)]


def dropped_block(model):
    model.stages[1].blocks[0] = nn.Identity()


def dropped_layer(model):
    model.stages[2].blocks[-1].ffn = nn.Identity()


def bgr(model):
    first = model.patch_embed[0].conv
    first.weight = first.weight[..., ::-1]


def zeroed(model):
    layer = model.stages[2].blocks[0].mixer.m.qkv.conv
    layer.weight = mx.zeros_like(layer.weight)


def another_normalization(model):
    spec = replace(model.info.preprocess, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    model.info = replace(model.info, preprocess=spec)


BROKEN_MODELS = {
    permuted: "a weight that is not like the model's: stages.1.blocks.0.ffn.m.pw1.weight",
    dropped_block: "does not use the model's weight stages.1.blocks.0",
    dropped_layer: "does not use the model's weight stages.2.blocks.2.ffn.m.pw1.weight",
    bgr: "a weight that is not like the model's: patch_embed.0.weight",
    zeroed: "a weight that is not like the model's: stages.2.blocks.0.mixer.m.qkv.weight",
    another_normalization: "preprocessing: mean is (0.5, 0.5, 0.5) in the package",
}


@pytest.mark.parametrize("fault", BROKEN_MODELS, ids=lambda f: f.__name__)
def test_other_weights_fail_though_their_figures_are_those_of_compression(fault, tmp_path):
    """A permuted layer costs this model 30 dB, less than four bits do."""
    model, other = create_model(MODELS[0]), create_model(MODELS[0])
    fault(other)
    path = export(other, tmp_path / "x.mlpackage", recipe="palette4")
    report = verify(model, path, sample_images(96)[:2])
    assert not report.passed
    assert any(BROKEN_MODELS[fault] in problem for problem in report.problems)


def test_too_few_bits_fail(tmp_path):
    model = create_model(MODELS[1])
    recipe = CompressionRecipe((Rule("*", "palettize", bits=3),))
    for outputs in (["embedding"], ["logits"]):
        path = export(
            model,
            tmp_path / "x.mlpackage",
            recipe=recipe,
            target="iOS18",
            outputs=outputs,
            force=True,
        )
        report = verify(model, path, scenes(16, 128))
        assert not report.passed, report.comparisons[0]


def test_what_few_or_equal_images_cannot_show_is_said(case):
    model, images, packages = case
    package = packages["int8"]
    (note,) = verify(model, package, images[:3]).require().notes
    assert note == "of 3 images only gross faults can be judged: give 8 or more"
    (note,) = verify(model, package, images[:1] * 9).require().notes
    assert note.startswith("9 images that hardly differ, or one, cannot show whether logits")


def test_likeness_knows_factors_from_faults():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((24, 40, 3, 3))
    scaled = weight * rng.uniform(0.1, 9, (24, 1, 1, 1)) * rng.uniform(0.1, 9, (1, 40, 1, 1))
    assert likeness(weight, scaled) == pytest.approx(1, abs=1e-3)
    assert likeness(weight, weight + 0.5 * rng.standard_normal(weight.shape)) > 0.85
    assert likeness(weight, weight[rng.permutation(24)]) < 0.3
    assert likeness(weight, weight[:, rng.permutation(40)]) < 0.3
    assert likeness(weight, -weight) < 0.3
    assert likeness(weight, 0 * weight) == likeness(0 * weight, weight) == 0
    assert likeness(0 * weight, 0 * weight) == 1  # an untrained bias
    assert likeness(weight, weight[:20]) == 0


# Labels


def with_spec(path, folder, change):
    copy = folder / "changed.mlpackage"
    shutil.copytree(path, copy)
    spec = Model_pb2.Model.FromString((copy / MODEL).read_bytes())
    change(spec)
    (copy / MODEL).write_bytes(spec.SerializeToString())
    return copy


def classes_of(spec):
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    (op,) = [op for op in block.operations if op.type == "classify"]
    listed = op.inputs["classes"].arguments[0].value.immediateValue.list.values
    return [value.immediateValue.tensor.strings.values for value in listed]


def unlabelled(spec):
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    (op,) = [op for op in block.operations if op.type == "classify"]
    block.operations.remove(op)
    for output in op.outputs:
        if output.name in block.outputs:
            block.outputs.remove(output.name)
    for output in list(spec.description.output):
        if output.type.WhichOneof("Type") != "multiArrayType":
            spec.description.output.remove(output)
    spec.description.predictedFeatureName = ""
    spec.description.predictedProbabilitiesName = ""


def repeated(spec):
    classes_of(spec)[3][0] = "dog"


def exchanged(spec):
    classes = classes_of(spec)
    classes[3][0], classes[5][0] = classes[5][0], classes[3][0]


BROKEN_LABELS = {
    unlabelled: "the package has no labels; the model has 10",
    repeated: "label 'dog' is given twice: a score by label is lost",
    exchanged: "class 3 is 'dog' in the package and 'cat' in the model",
}


@pytest.mark.parametrize("fault", BROKEN_LABELS, ids=lambda f: f.__name__)
def test_labels_have_to_be_the_models(nano, package, tmp_path, fault):
    report = verify(nano, with_spec(package.path, tmp_path, fault), sample_images(96)[:2])
    assert not report.passed
    assert BROKEN_LABELS[fault] in report.problems


def test_fewer_labels_fail(nano, package, monkeypatch):
    monkeypatch.setattr(type(package), "labels", nano.info.labels[:9])
    report = verify(nano, package, sample_images(96)[:2])
    assert "the package has 9 labels; the model has 10" in report.problems


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r | {"classLabel": "nothing"}, "which is not the likeliest class"),
        (lambda r: r | {"classLabel": min(SCORES(r), key=SCORES(r).get)}, "not the likeliest"),
        (lambda r: r | {"classLabel_probs": dict.fromkeys(SCORES(r), 0.1)}, "not the prob"),
        (
            lambda r: r | {"classLabel_probs": dict([*SCORES(r).items()][:9])},
            "9 scores by label",
        ),
    ],
)
def test_the_label_and_its_scores_have_to_be_those_of_the_logits(
    nano, package, monkeypatch, change, said
):
    predict = package.predict
    monkeypatch.setattr(package, "predict", lambda x, **options: change(predict(x, **options)))
    report = verify(nano, package, sample_images(96)[:1])
    assert said in report.problems[0]


def SCORES(result):  # noqa: N802
    return result["classLabel_probs"]


def test_labels_of_several_functions_are_looked_at_too(tmp_path):
    model = create_model(MODELS[1])
    path = export(model, tmp_path / "x.mlpackage", size=[64, 96], target="iOS18")
    assert load_package(path).labels == model.info.labels
    model.info = replace(model.info, labels=model.info.labels[::-1])
    problems = verify(model, path, sample_images(64)[:1]).problems
    assert [line.split(" in the")[0] for line in problems] == [
        "size_64: class 0 is 'daisy'",
        "size_96: class 0 is 'daisy'",
    ]


# Another model


def test_another_contract_fails(package):
    model = create_model(MODELS[0])
    spec = replace(model.info.preprocess, crop_pct=0.5, interpolation="nearest")
    model.info = replace(model.info, preprocess=spec)
    report = verify(model, package, sample_images(96)[:1])
    assert report.problems == (
        "preprocessing: crop_pct is 1.0 in the package and 0.5 in the model",
        "preprocessing: interpolation is bicubic in the package and nearest in the model",
    )


def test_a_fine_tuned_package_against_the_published_model_says_what_to_do(tmp_path):
    model = create_model("shvit_nano", num_classes=7)
    path = export(model, tmp_path / "x.mlpackage")
    with pytest.raises(
        ConfigError, match=r"logits is \[1, 7\]; the model gives \[1, 10\].*--model FOLDER"
    ):
        verify(create_model(MODELS[0]), path, sample_images(96), baselines=True)


def test_images_for_a_module_that_takes_arrays_are_one_line(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3)).eval()
    path = export_module(net, mx.zeros((1, 16, 16, 3)), tmp_path / "net.mlpackage")
    for wrong in ("a.png", Path("a.png"), Image.new("RGB", (16, 16)), np.zeros((16, 16, 3))):
        with pytest.raises(ConfigError, match="an array, input: float"):
            verify(net, path, [wrong])
