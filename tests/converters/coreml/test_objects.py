"""Packages whose objects Vision knows: what is written, how it is read, what it computes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder
from PIL import Image

from converters import export, export_functions, load_package, verify
from converters.coreml.objects import CONFIDENCE, ObjectsPackage
from converters.coreml.reader import quiet
from converters.coreml.suppression import Suppression
from converters.function.golden import golden_path
from converters.verification.inspect import inspect
from ondevice import create_model
from ondevice.cli._evaluate_boxes import package_detector
from ondevice.errors import ConfigError, PackageError
from ondevice.nn.detection import COLUMNS, Detector
from ondevice.tasks.detection.evaluate import surest

from ...ondevice.models.test_dense import scrambled
from ...ondevice.models.test_detectors import LIGHT
from ...ondevice.tasks.detection.conftest import write_set

LABELS = tuple("abcde")
MODEL = "Data/com.apple.CoreML/model.mlmodel"
FLOAT32, INPUTS = 65568, {"image", "confidenceThreshold", "iouThreshold"}


def light(**changes):
    """A detector of twelve boxes, whose labels are letters."""
    mx.random.seed(0)
    model = scrambled(create_model("light_detr_shvit_nano", **(LIGHT | changes)))
    spec = replace(model.info.preprocess, size=128)
    labels = LABELS[: model.config.num_classes]
    model.info = replace(model.info, preprocess=spec, labels=labels)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return light()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """Such a package, and the plain one, in float32."""
    folder = tmp_path_factory.mktemp("objects")
    for outputs in ("objects", None):
        path = folder / f"{outputs or 'plain'}.mlpackage"
        export(model, path, outputs=outputs, precision="float32")
    return folder


@pytest.fixture
def package(saved):
    return load_package(saved / "objects.mlpackage")


@pytest.fixture
def copied(saved, tmp_path):
    """A copy to change."""
    return shutil.copytree(saved / "objects.mlpackage", tmp_path / "objects.mlpackage")


def change(path, how):
    with quiet():
        from coremltools import proto
    spec = proto.Model_pb2.Model()
    spec.ParseFromString((path / MODEL).read_bytes())
    how(spec)
    (path / MODEL).write_bytes(spec.SerializeToString())
    return path


def array_of(feature):
    array = feature.type.multiArrayType
    ranges = [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges]
    return array.dataType, list(array.shape), ranges


# What is written.


def test_it_is_a_pipeline_as_vision_asks_for(package):
    """Types, ranks and names are those that Core ML's validators check."""
    spec = package.saved.spec
    network, last = spec.pipeline.models
    versions = {model.specificationVersion for model in (spec, network, last)}
    kinds = [model.WhichOneof("Type") for model in spec.pipeline.models]
    assert (kinds, versions) == (["mlProgram", "nonMaximumSuppression"], {8})
    scores, boxes = network.description.output
    assert (scores.name, array_of(scores)) == ("raw_confidence", (FLOAT32, [12, COLUMNS], []))
    assert (boxes.name, array_of(boxes)) == ("raw_coordinates", (FLOAT32, [12, 4], []))
    assert list(last.description.input)[:2] == [scores, boxes]
    assert [o.name for o in last.description.output] == ["confidence", "coordinates"]
    for given, own in zip(spec.description.output, last.description.output, strict=True):
        columns = {"confidence": COLUMNS, "coordinates": 4}[own.name]
        assert array_of(own) == (FLOAT32, [], [(0, -1), (columns, columns)])
        assert given.type == own.type
        assert given.shortDescription


def test_thresholds_are_inputs_that_can_be_left_out(package):
    description = package.saved.spec.description
    image, *thresholds = description.input
    assert image.type == package.saved.network.description.input[0].type
    assert image.shortDescription
    assert [t.name for t in thresholds] == ["confidenceThreshold", "iouThreshold"]
    assert all(t.type.isOptional and t.type.HasField("doubleType") for t in thresholds)
    assert "0.25" in thresholds[0].shortDescription
    own = list(package.saved.spec.pipeline.models[1].description.input)[2:]
    assert [i.name for i in own] == [t.name for t in thresholds]
    said = description.metadata.userDefined
    assert (said["confidence_threshold"], said["iou_threshold"]) == ("0.25", "1")


def test_the_stage_has_a_label_for_each_column(package):
    stage = package.saved.spec.pipeline.models[1].nonMaximumSuppression
    labels = list(stage.stringClassLabels.vector)
    assert labels[:6] == [*LABELS, "unused 5"]
    assert len(labels) == len({*labels}) == COLUMNS
    assert stage.pickTop.perClass
    assert package.labels == LABELS


def test_coremltools_opens_it(saved):
    with quiet():
        import coremltools as ct

        opened = ct.models.MLModel(str(saved / "objects.mlpackage"), skip_model_load=True)
    assert opened.get_spec().WhichOneof("Type") == "pipeline"
    assert [*opened.output_description] == ["confidence", "coordinates"]


def test_what_the_model_is_stands_in_the_package(package, saved):
    plain = load_package(saved / "plain.mlpackage").metadata
    said = package.metadata
    own = {"confidence_threshold", "iou_threshold", "shortDescription"}
    assert {k: v for k, v in said.items() if k not in own} == {
        k: v for k, v in plain.items() if k not in own
    }
    assert said["shortDescription"].endswith("in, objects out")
    assert package.preprocess.size == 128


def test_the_same_model_gives_the_same_package(model, package, tmp_path, monkeypatch):
    """Whatever else was built before: coremltools counts what it names."""
    monkeypatch.setitem(Builder.name_count, "mul", 500)
    again = load_package(
        export(model, tmp_path / "o.mlpackage", outputs="objects", precision="float32")
    )
    one, two = (p.saved.spec.SerializeToString(deterministic=True) for p in (package, again))
    assert one == two
    weights = [(p.saved.weights_dir / "weight.bin").read_bytes() for p in (package, again)]
    assert weights[0] == weights[1]


def test_overlap_that_a_model_asks_for_reaches_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(Detector, "max_overlap", 0.5)
    model = light()
    assert {o.max_overlap for o in model.signature.outputs if o.kind == "boxes"} == {0.5}
    package = load_package(export(model, tmp_path / "o.mlpackage", outputs="objects"))
    assert package.saved.spec.pipeline.models[1].nonMaximumSuppression.iouThreshold == 0.5
    assert package.metadata["iou_threshold"] == "0.5"
    assert package.max_overlap == 0.5
    plain = load_package(export(model, tmp_path / "plain.mlpackage"))
    assert plain.metadata["ondevice.max_overlap"] == "0.5"
    assert plain.max_overlap == 0.5
    monkeypatch.undo()
    report = verify(light(), plain, light().signature.samples(1))
    assert "boxes of one class may overlap by 0.5 in the package and by 1" in report.problems[0]


def test_no_golden_values_depend_on_a_threshold(saved):
    golden = json.loads(golden_path(saved / "objects.mlpackage").read_text())
    assert golden["outputs"] == {}
    assert golden["left_out"] == []
    assert golden["normalized"]["values"]


# What the stage does.


def stage(**changes):
    return Suppression("s", "b", 0.25, 0.5, tuple("ab"), **changes)


# A square, one that overlaps it by 0.6, by 1/3, and one far away.
SQUARE, NEAR, HALF, FAR = ([x, 0.5, 0.2, 0.2] for x in (0.5, 0.55, 0.6, 0.9))


@pytest.mark.parametrize(
    ("boxes", "scores", "kept"),
    [
        ([SQUARE, NEAR], [[0.5, 0], [0.9, 0]], [1]),
        ([SQUARE, NEAR], [[0.5, 0], [0, 0.9]], [1, 0]),  # another class
        ([SQUARE, HALF, FAR], [[0.5, 0], [0.9, 0], [0.7, 0]], [1, 2, 0]),
        ([SQUARE, FAR], [[0.25, 0], [0.24, 0]], [0]),  # what reaches the threshold
        # What a dropped box overlaps stays.
        ([SQUARE, NEAR, HALF], [[0.9, 0], [0.8, 0], [0.7, 0]], [0, 2]),
        ([SQUARE], [[0.1, 0.2]], []),
        ([[0.5, 0.5, 0, 0]] * 2, [[0.9, 0], [0.8, 0]], [0, 1]),  # no area
    ],
)
def test_boxes_that_mark_the_same_are_dropped(boxes, scores, kept):
    boxes, scores = (np.array(x, np.float32) for x in (boxes, scores))
    found = stage().run(scores, boxes, {})
    np.testing.assert_array_equal(found[0], scores[kept].reshape(-1, 2))
    np.testing.assert_array_equal(found[1], boxes[kept].reshape(-1, 4))


def test_thresholds_can_be_given_and_classes_be_one():
    boxes = np.array([SQUARE, NEAR], np.float32)
    scores = np.array([[0.1, 0], [0, 0.9]], np.float32)
    one = stage()
    rows = [
        len(one.run(scores, boxes, given)[0])
        for given in ({}, {"confidenceThreshold": 0.05}, one.keep_all)
    ]
    assert rows == [1, 2, 2]
    agnostic = stage(per_class=False)
    assert len(agnostic.run(scores, boxes, {"confidenceThreshold": 0})[0]) == 1
    assert len(agnostic.run(scores, boxes, agnostic.keep_all)[0]) == 2
    assert len(agnostic.run(scores, boxes, agnostic.keep_all | {"iouThreshold": 0.55})[0]) == 1
    assert stage(max_overlap_input="").keep_all == {"confidenceThreshold": 0.0}


# How it is read and run.


def surest_first(values):
    scores, boxes = (np.asarray(values[n]) for n in ("confidence", "coordinates"))
    scores, boxes = scores.reshape(-1, scores.shape[-1]), boxes.reshape(-1, 4)
    order = np.argsort(-scores.max(-1), kind="stable")
    return scores[order], boxes[order]


def test_it_gives_what_the_plain_package_does(package, saved, model):
    plain = load_package(saved / "plain.mlpackage")
    for pixels in model.signature.samples(2):
        wanted, boxes = surest_first(plain.predict({"image": pixels}))
        found = package.predict({"image": pixels, **package.keep_all})
        scores, places = surest_first(found)
        np.testing.assert_allclose(scores.max(-1), wanted.max(-1), rtol=1e-5)
        assert (scores.argmax(-1) == wanted.argmax(-1)).all()
        np.testing.assert_allclose(places, boxes, atol=1e-5)


def test_its_own_thresholds_hold_where_none_are_given(package, model):
    (pixels,) = model.signature.samples(1)
    every = package.predict({"image": pixels, **package.keep_all})["confidence"].max(-1)
    middle = float(np.sort(every)[6] + np.sort(every)[5]) / 2
    few = package.predict({"image": pixels, "confidenceThreshold": middle})
    assert [len(value) for value in few.values()] == [6, 6]
    assert (every >= CONFIDENCE).sum() == len(package.predict({"image": pixels})["confidence"])
    with pytest.raises(PackageError, match="takes image; given image, nonsense"):
        package.predict({"image": pixels, "nonsense": 1})
    with pytest.raises(PackageError, match="iouThreshold is no number: 'much'"):
        package.predict({"image": pixels, "iouThreshold": "much"})


def test_verify_compares_every_box(model, saved):
    report = verify(
        model, saved / "objects.mlpackage", model.signature.samples(2), baselines=True
    )
    assert report.require().comparisons[0].of_kind == {"matched": 1.0, "alike": 1.0}
    assert [c.output for c in report.comparisons] == ["raw_confidence", "raw_coordinates"]
    assert not report.problems


def test_verify_finds_another_stage_labels_and_weights(model, copied):
    def other(spec):
        last = spec.pipeline.models[1].nonMaximumSuppression
        last.iouThreshold = 0.3
        last.stringClassLabels.vector[1] = "z"

    report = verify(model, change(copied, other), model.signature.samples(1))
    assert not report.passed
    assert [line.split(" in ")[0] for line in report.problems] == [
        "class 1 is 'z'",
        "boxes of one class may overlap by 0.3",
    ]
    mx.random.seed(1)
    stranger = light()
    stranger.load_weights([("decoder.bbox_embed.0.layers.2.bias", mx.ones(4))], strict=False)
    assert not verify(stranger, copied, model.signature.samples(1)).passed


def test_verify_says_that_boxes_are_missing(model, copied):
    """A stage whose thresholds nobody can set drops boxes that the model gives."""

    def fixed(spec):
        last = spec.pipeline.models[1]
        last.nonMaximumSuppression.confidenceThreshold = 0.99
        last.nonMaximumSuppression.confidenceThresholdInputFeatureName = ""
        del last.description.input[2]
        del spec.description.input[1]

    with pytest.raises(ConfigError, match=r"is \[0, 80\]; the model gives \[12, 80\]"):
        verify(model, change(copied, fixed), model.signature.samples(1))


def test_another_number_of_boxes_is_another_model(saved):
    other = light(queries=10)
    other.config = replace(other.config, num_classes=5)
    with pytest.raises(ConfigError, match=r"\[12, 80\]|given|\[10, 80\]"):
        verify(other, saved / "objects.mlpackage", other.signature.samples(1))


def test_average_precision_is_that_of_the_plain_one(tmp_path, ondevice_):
    """Of one class, whose scores all reach the threshold, so that no box is left out."""
    model = light(num_classes=1)
    write_set(tmp_path / "set", model)
    paths = [tmp_path / f"{name}.mlpackage" for name in ("plain", "objects")]
    for path, outputs in zip(paths, (None, "objects"), strict=True):
        export(model, path, outputs=outputs)
    photo = Image.open(tmp_path / "set" / "0.png")
    scores = [package_detector(load_package(path), "").find(photo)[1] for path in paths]
    assert min(s.min() for s in scores) > CONFIDENCE
    status, out, _ = ondevice_("evaluate", *paths, "--images", tmp_path / "set", "--json")
    assert status == 0
    plain, objects = json.loads(out)["models"]
    assert plain.pop("name") != objects.pop("name")
    assert plain == objects
    assert plain["AP"] > 0.1


def test_nothing_found_is_no_error(copied):
    def sure(spec):
        spec.pipeline.models[1].nonMaximumSuppression.confidenceThreshold = 1.0

    detector = package_detector(load_package(change(copied, sure)), "none")
    boxes, scores = detector.find(Image.new("RGB", (60, 40)))
    assert (boxes.shape, scores.shape) == ((0, 4), (0, 5))
    assert len(surest(boxes, scores, np.arange(5)).scores) == 0


def test_a_score_of_zero_is_no_detection():
    boxes = np.array([SQUARE] * 2)
    scores = np.array([[0.5, 0.0], [0.0, 0.4]])
    found = surest(boxes, scores, np.arange(2))
    assert (found.classes.tolist(), found.scores.tolist()) == ([0, 1], [0.5, 0.4])


def test_inspect_shows_the_stage_and_its_inputs(package):
    found = inspect(package)
    assert found.operations["non_maximum_suppression"] == 1
    assert {feature.name for feature in found.inputs} == INPUTS
    assert [str(f) for f in found.outputs] == [
        "confidence: array float32 [-1, 80]",
        "coordinates: array float32 [-1, 4]",
    ]
    assert str(found.inputs[1]) == "confidenceThreshold: double"
    assert "flexible-shape" not in {finding.rule for finding in found.findings}


def test_commands_know_such_packages(saved, ondevice_):
    status, out, _ = ondevice_("inspect", saved / "objects.mlpackage")
    assert status == 0
    assert "input   iouThreshold: double" in out


# What is refused.


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"outputs": ["objects", "confidence"]}, "they come alone; asked for raw_confidence"),
        ({"outputs": ["raw_confidence"]}, "they come alone; asked for raw_confidence"),
        ({"outputs": "objects", "input": "array"}, "it gives an image, and no array"),
        ({"outputs": "objects", "also": "o.aimodel"}, "o.aimodel cannot give them"),
        (
            {"outputs": "objects", "size": [128, 192], "target": "iOS18"},
            "several functions cannot give them: export one by one",
        ),
    ],
)
def test_what_vision_cannot_read_is_refused(model, options, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="objects are for Apple's Vision") as caught:
        export(model, "o.mlpackage", **options)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()]


def test_all_that_is_wrong_is_said_at_once(model, tmp_path):
    nameless = light()
    nameless.info = replace(nameless.info, labels=())
    with pytest.raises(ConfigError) as caught:
        export(nameless, tmp_path / "o.mlpackage", outputs="objects", input="array")
    assert "and no array; it shows labels, and light_detr_shvit_nano has none" in str(
        caught.value
    )
    with pytest.raises(ConfigError, match="export one by one"):
        export_functions(
            {"a": model, "b": model},
            tmp_path / "o.mlpackage",
            outputs="objects",
            target="iOS18",
        )


def test_what_is_no_detector_gives_no_objects(tmp_path):
    with pytest.raises(ConfigError, match="shvit_nano gives no objects; it gives"):
        export(create_model("shvit_nano"), tmp_path / "o.mlpackage", outputs="objects")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (
            lambda s: s.pipeline.models.pop(),
            "is a pipeline of mlProgram; expected an ML program",
        ),
        (
            lambda s: s.pipeline.models.reverse(),
            "of nonMaximumSuppression, mlProgram; expected",
        ),
        (
            lambda s: setattr(last(s), "confidenceInputFeatureName", "lost"),
            "makes confidence, coordinates of lost, raw_coordinates; the network gives raw_",
        ),
        (
            lambda s: setattr(last(s), "coordinatesOutputFeatureName", "lost"),
            "and the package confidence, coordinates",
        ),
        (lambda s: last(s).stringClassLabels.vector.pop(), "79 labels for scores of [12, 80]"),
        (lambda s: setattr(last(s), "iouThreshold", 2), "iouThreshold 2; expected 0 or more"),
        (lambda s: setattr(last(s), "confidenceThreshold", float("nan")), "Threshold nan"),
    ],
)
def test_a_broken_pipeline_is_one_line(copied, how, why):
    with pytest.raises(PackageError) as caught:
        load_package(change(copied, how))
    assert why in str(caught.value)
    assert str(caught.value).startswith(f"{copied}: ")
    assert "\n" not in str(caught.value)


def test_boxes_without_four_numbers_are_refused(copied):
    """Scores and boxes exchanged, without labels to tell."""

    def exchanged(spec):
        own = last(spec)
        own.confidenceInputFeatureName = "raw_coordinates"
        own.coordinatesInputFeatureName = "raw_confidence"
        own.ClearField("stringClassLabels")

    package = load_package(change(copied, exchanged))
    with pytest.raises(PackageError, match=r"scores \[12, 4\] and boxes \[12, 80\]; expected"):
        package.predict({"image": Image.new("RGB", (128, 128))})


def last(spec):
    return spec.pipeline.models[1].nonMaximumSuppression


def test_packages_that_others_made_are_read(copied):
    """As Ultralytics and Turi Create write them: no inputs or numbers for labels, all classes
    in one."""

    def foreign(spec):
        own = last(spec)
        own.int64ClassLabels.vector.extend(range(COLUMNS))
        own.ClearField("pickTop")
        own.iouThresholdInputFeatureName = ""
        del spec.pipeline.models[1].description.input[2:]
        del spec.description.input[1:]

    package = load_package(change(copied, foreign))
    assert isinstance(package, ObjectsPackage)
    assert package.labels == tuple(map(str, range(COLUMNS)))
    assert (package.optional_inputs, package.keep_all) == ({}, {})
    assert not package.stage.per_class
    assert package.predict({"image": Image.new("RGB", (128, 128))})["coordinates"].shape[1] == 4
