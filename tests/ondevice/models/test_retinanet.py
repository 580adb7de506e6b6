"""RetinaNet beside NumPy, from arrays with the authors' names, and packages of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from converters import export, load_package, verify
from converters.export.build import lay_out, rename_inputs, to_graph
from ondevice import create_model, fuse, list_models, model_spec
from ondevice.cli._evaluate_boxes import package_detector
from ondevice.errors import ConfigError, PackageError, WeightsError
from ondevice.models.retinanet import anchors, moved
from ondevice.tasks.dense import predict
from ondevice.tasks.detection.evaluate import model_detector, surest

from ...parity import retinanet_numpy as twin
from ...parity.weightgen import image_batch
from ...support.lowered import function_of

NAMES = list_models("retinanet_*")
DIM, CLASSES, SIZE = 16, 5, 128


def backbone(name):
    return name.removeprefix("retinanet_")


@cache
def arrays(name):
    return twin.weights(backbone(name), DIM, CLASSES)


def small(name, **overrides):
    """On the real backbone; all else is narrow."""
    weights = {k: mx.array(v) for k, v in arrays(name).items()}
    config = {"dim": DIM, "num_classes": CLASSES, **overrides}
    model = create_model(name, weights=weights, **config)
    spec = replace(model.info.preprocess, size=SIZE)
    model.info = replace(model.info, preprocess=spec, labels=tuple("abcde"))
    return model


def pixels(count=1):
    return mx.array(image_batch(0, count, SIZE).transpose(0, 2, 3, 1))


@cache
def levels(name):
    """NumPy's logits, deltas and anchors of each map, of the backbone's maps of one image."""
    maps = [np.array(y)[0].transpose(2, 0, 1) for y in small(name).backbone.maps(pixels())]
    w = arrays(name)
    found = []
    for x, stride in zip(twin.neck(w, maps), twin.STRIDES, strict=True):
        found.append((*twin.head(w, x), twin.grid_anchors(*x.shape[1:], stride)))
    return found


def error(found, wanted):
    return float(np.abs(np.array(found)[0] - wanted).max() / wanted.std())


@pytest.mark.parametrize("name", NAMES)
def test_the_arrays_of_a_detector_of_mmdetection_are_all_taken(name):
    """None is missing, left over or of another shape; what only counts or can be computed is
    ignored."""
    shapes = twin.shapes(backbone(name))
    model = create_model(name, weights={k: mx.zeros(s) for k, s in shapes.items()})
    taken = [k for k in shapes if not k.endswith(("num_batches_tracked", "bias_idxs"))]
    assert len(tree_flatten(model.parameters())) == len(taken)
    model.train()
    count = sum(v.size for _, v in tree_flatten(model.trainable_parameters()))
    assert count == model_spec(name).params
    del shapes["neck.extra_trans_convs.0.conv.bias"]
    with pytest.raises(WeightsError, match=r"missing 1: neck\.extra_trans_convs\.0\.bias"):
        create_model(name, weights={k: mx.zeros(s) for k, s in shapes.items()})


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_deltas_of_all_anchors_are_those_of_numpy(name):
    logits, deltas = (
        np.concatenate(part) for part in list(zip(*levels(name), strict=True))[:2]
    )
    assert logits.shape == (3069, CLASSES)
    for model in (small(name), fuse(small(name))):
        found = model.proposals(pixels())
        assert error(found[0], logits) < 1e-4
        assert error(found[1], deltas) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_candidates_are_the_anchors_that_numpy_finds_surest(name):
    logits, deltas, places = map(np.concatenate, zip(*levels(name), strict=True))
    best = np.argsort(-logits.max(axis=-1), kind="stable")[:50]
    boxes = twin.decoded(places[best], deltas[best]) / SIZE
    low, high = boxes[:, :2], boxes[:, 2:]
    model = small(name, candidates=50)
    found = model.detect(pixels())
    assert error(found[0], logits[best]) < 1e-4
    assert error(found[1], np.concatenate([(low + high) / 2, high - low], axis=1)) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_objects_are_those_of_mmdetection(name):
    """Its choice of a thousand a map, its suppression and its hundred surest, in its order."""
    wanted = twin.results(levels(name), (SIZE, SIZE))
    raw = np.concatenate([logits for logits, _, _ in levels(name)])
    assert len(wanted) == twin.KEPT
    model = small(name)
    outputs = model(pixels())
    (found,) = model.signature.select().decode(outputs, [(SIZE, SIZE)], twin.LEAST)[
        "coordinates"
    ]
    rows = [(x, y, x + w, y + h, d.score, d.index) for d in found for x, y, w, h in [d.box]]
    rows = np.array(rows[: twin.KEPT])
    assert (rows[:, 5] == wanted[:, 5]).all()
    assert np.abs(rows[:, :4] - wanted[:, :4]).max() < 1e-4 * SIZE
    assert np.abs(rows[:, 4] - wanted[:, 4]).max() < 1e-4
    above = (1 / (1 + np.exp(-raw)) >= wanted[-1, 4]).sum()
    assert above > 1.5 * len(wanted)  # many were dropped


def test_anchors_are_those_of_mmdetection():
    wanted = [twin.grid_anchors(-(-192 // s), -(-320 // s), s) for s in twin.STRIDES]
    low, high = np.split(np.concatenate(wanted) / [320, 192, 320, 192], 2, axis=1)
    found = np.array(anchors(192, 320))
    assert np.abs(found - np.concatenate([(low + high) / 2, high - low], axis=1)).max() < 1e-6


def test_boxes_grow_and_shrink_within_limits():
    deltas = np.array([[0.5, -1, 9, -9], [0, 0, 4, -4]], np.float32)
    places = np.array([[0.5, 0.4, 0.2, 0.1]] * 2, np.float32)
    wanted = twin.decoded(np.array([[0.4, 0.35, 0.6, 0.45]] * 2), deltas)
    found = np.array(moved(mx.array(places)[None], mx.array(deltas)[None]))[0]
    corners = np.concatenate(
        [found[:, :2] - found[:, 2:] / 2, found[:, :2] + found[:, 2:] / 2], 1
    )
    assert np.abs(corners - wanted).max() < 1e-5
    assert np.allclose(found[0, 2:] / places[0, 2:], (62.5, 1 / 62.5), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_package_moves_little_and_stays_within_five_axes(name):
    function = function_of(create_model(name), size=320)
    graph = lay_out(rename_inputs(to_graph(function), function.input_names), function)
    found = Counter(node.op for node in graph.nodes)
    assert found["Transpose"] == 2  # logits and deltas, once all maps are joined
    assert max(len(value.shape) for value in graph.values.values()) <= 5
    assert len(graph.nodes) <= {"shvit_s4": 454, "efficientvit_m4": 554}[backbone(name)]


@pytest.mark.parametrize(("precision", "matched"), [("float32", 1.0), ("float16", 0.9)])
@pytest.mark.parametrize("name", NAMES)
def test_a_package_finds_the_same_boxes(name, precision, matched, tmp_path):
    model = small(name, candidates=100)
    path = export(model, tmp_path / "boxes.mlpackage", precision=precision)
    package = load_package(path)
    assert package.outputs["coordinates"].dtype == "float32"
    report = verify(model, path, model.signature.samples(2), gates={"matched": matched})
    compared = report.require().comparisons
    assert compared[0].of_kind["matched"] >= matched
    if precision == "float32":
        assert min(c.psnr_db for c in compared) > 100


def photo(width=160, height=90):
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 255, (9, 16, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("retinanet") / "boxes.mlpackage"
    return load_package(export(small(NAMES[0]), path, precision="float32"))


def test_detect_evaluate_and_a_package_drop_the_same_boxes(package):
    """The surest of what is left, once by each; many were dropped."""
    model = small(NAMES[0])
    (found,) = predict(model, [photo()], "boxes", threshold=0.05)
    wanted = [(d.index, d.score, d.box) for d in found.found]
    for detector in (model_detector(model), package_detector(package, "package")):
        boxes, scores = detector.find(photo())
        assert (scores < 0).sum() > 0.5 * (np.abs(scores) > 0.05).sum()
        surer = surest(boxes, scores, np.arange(CLASSES))
        rows = zip(surer.classes, surer.scores, surer.boxes, strict=True)
        for (number, score, box), mine in zip(rows, wanted, strict=False):
            assert number == mine[0]
            assert score == pytest.approx(mine[1], abs=1e-4)
            assert box == pytest.approx(mine[2], abs=0.02)
        assert (surer.scores >= 0).all()
    assert len(wanted) > len(surer.scores) == 300


def test_a_package_says_that_boxes_overlap(package):
    assert (package.metadata["ondevice.max_overlap"], package.max_overlap) == ("0.5", 0.5)
    (text,) = (
        output.shortDescription
        for output in package.saved.spec.description.output
        if output.name == "confidence"
    )
    assert "no suppression" not in text
    assert "is above 0.5 the surer one" in text
    other = small(NAMES[0])
    other.max_overlap = 0.7
    report = verify(other, package.path, other.signature.samples(1))
    assert report.problems == (
        "boxes of one class may overlap by 0.5 in the package and by 0.7 in the model",
    )


def test_other_detectors_need_no_suppression(tmp_path):
    model = create_model("light_detr_shvit_nano", num_classes=2, queries=5)
    assert model.signature.max_overlap == 1
    assert "no suppression is needed" in model.signature.outputs[0].text
    path = export(model, tmp_path / "light.mlpackage")
    assert "ondevice.max_overlap" not in load_package(path).metadata
    assert load_package(path).max_overlap == 1


@pytest.mark.parametrize("said", ["1.5", "-1", "many", "nan"])
def test_a_package_that_says_nonsense_of_it_is_refused(package, said, monkeypatch):
    metadata = {**package.metadata, "ondevice.max_overlap": said}
    monkeypatch.setattr(type(package), "metadata", metadata)
    why = r"ondevice\.max_overlap is ('.*', expected 0 to 1|no number: 'many')$"
    with pytest.raises(PackageError, match=why):
        _ = package.max_overlap


def test_training_takes_none(ondevice_, tmp_path):
    args = ("--task", "detect", "--model", NAMES[0], "--out", tmp_path / "out")
    status, out, err = ondevice_("train", tmp_path, *args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"{NAMES[0]} is no detector to train" in err
    assert not (tmp_path / "out").exists()


def test_other_sizes_than_multiples_of_the_coarsest_stride_are_refused():
    with pytest.raises(ConfigError, match="multiples of 64"):
        small(NAMES[0])(mx.zeros((1, 96, 128, 3)))
