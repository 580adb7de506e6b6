from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from PIL import Image

import ondevice
from converters import export, load_package, verify
from ondevice import save_model
from ondevice.config.labels import imagenet1k
from ondevice.errors import ConfigError, ImageError
from ondevice.image.preprocess import preprocess
from ondevice.signature.samples import sample_images
from ondevice.tasks.classify import Prediction, classify

from ...support.lowered import function_of


@pytest.fixture(scope="module")
def model():
    return ondevice.create_model("shvit_nano.cifar10")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (40 + n, 50, 3), dtype=np.uint8)) for n in range(5)
    ]


def test_scores_are_the_softmax_of_the_logits_in_falling_order(model, images):
    found = classify(model, images, top_k=10)
    logits = np.array(model(preprocess(images, model.info.preprocess)), np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for predictions, scores in zip(found, expected, strict=True):
        assert [p.index for p in predictions] == list(np.argsort(-scores))
        # 1e-5: one batch of 5 against batches whose products are summed in another order
        assert [p.score for p in predictions] == pytest.approx(sorted(scores)[::-1], abs=1e-6)
        assert [p.label for p in predictions] == [
            model.info.labels[p.index] for p in predictions
        ]


def test_batches_do_not_change_what_is_found(model, images):
    whole = classify(model, images, top_k=3)
    parts = classify(model, (p for p in images), top_k=3, batch_size=2)
    for a, b in zip(whole, parts, strict=True):
        assert [p.label for p in a] == [p.label for p in b]
        assert [p.score for p in a] == pytest.approx([p.score for p in b], abs=1e-6)


def test_one_image_gives_a_list_of_one(model, images):
    (predictions,) = classify(model, images[0], top_k=1)
    assert isinstance(predictions[0], Prediction)


def test_no_more_classes_than_there_are(model, images):
    assert len(classify(model, images[0], top_k=99)[0]) == 10


def test_no_images_give_an_empty_list(model):
    assert classify(model, []) == []


def test_another_size_is_used(model, images):
    usual, large = (classify(model, images[0], size=size)[0][0] for size in (None, 128))
    assert usual.score != large.score


def test_every_bad_image_is_named(model, images, tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg is empty; .*missing\.jpg"):
        classify(model, [tmp_path / "empty.jpg", images[0], tmp_path / "missing.jpg"])


def test_classes_without_names_have_numbers(images):
    model = ondevice.create_model("shvit_nano", num_classes=3)
    best = classify(model, images[0])[0]
    assert {p.label for p in best} == {"class 0", "class 1", "class 2"}


def test_a_backbone_without_classes_is_refused(images):
    model = ondevice.create_model("shvit_nano", num_classes=0)
    with pytest.raises(ConfigError, match="no classes"):
        classify(model, images[0])


def test_half_precision_gives_finite_scores(images):
    model = ondevice.create_model("shvit_nano.cifar10", dtype=mx.float16)
    scores = [p.score for p in classify(model, images[0], top_k=10)[0]]
    assert sum(scores) == pytest.approx(1, abs=1e-6)


def test_imagenets_names_are_in_the_order_of_the_synsets():
    names = imagenet1k()
    assert len(names) == len(set(names)) == 1000  # Core ML wants unique class labels
    some = {0: "tench, ", 281: "tabby, ", 517: "crane (machine)", 999: "toilet tissue, "}
    assert all(names[i].startswith(name) for i, name in some.items())


def test_only_published_weights_have_imagenets_names():
    assert ondevice.create_model("shvit_s1").info.labels == ()
    spec = ondevice.model_spec("shvit_s1")
    assert spec.info("in1k").labels == imagenet1k()
    assert spec.info("in1k", num_classes=10).labels == ()
    assert ondevice.model_spec("fastvit_mci0").info("apple_mclip").labels == ()


# One logit


def binary(*labels):
    """A model with one logit, whose sign is not the same for all test patterns."""
    mx.random.seed(0)
    model = ondevice.create_model("shvit_nano", num_classes=1)
    model.info = replace(model.info, labels=labels)
    spec = replace(model.info.preprocess, crop_pct=1.0, source_size=None)
    model.info = replace(model.info, preprocess=spec)
    model.head.linear.bias = -model(preprocess(sample_images(96), spec)).mean(axis=0)
    return model.eval()


def logistic(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ((), ("class 0", "class 1")),
        (("cat",), ("not cat", "cat")),
        (("dog", "cat"), ("dog", "cat")),
    ],
)
def test_one_logit_is_the_sigmoid_of_the_second_of_two_classes(labels, names):
    model = binary(*labels)
    images = sample_images(96)
    wanted = logistic(model(preprocess(images, model.info.preprocess)))[:, 0]
    assert wanted.min() < 0.5 < wanted.max()
    for found, yes in zip(classify(model, images), wanted, strict=True):
        assert {p.label: p.score for p in found} == pytest.approx(
            dict(zip(names, (1 - yes, yes), strict=True)), abs=1e-5
        )
        assert found[0].label == names[int(yes > 0.5)]
        assert [p.index for p in found] == ([1, 0] if yes > 0.5 else [0, 1])


@pytest.mark.parametrize("labels", [("cat",), ("dog", "cat")])
def test_a_package_of_one_logit_gives_both_classes(labels, tmp_path):
    model = binary(*labels)
    package = load_package(export(model, tmp_path / "x.mlpackage", precision="float32"))
    names = ("not cat", "cat") if len(labels) == 1 else labels
    assert package.labels == names
    said = set()
    for image in sample_images(96):
        got = package.predict({"image": image})
        yes = logistic(got["logits"])[0, 0]
        assert got["classLabel_probs"] == pytest.approx(
            {names[0]: 1 - yes, names[1]: yes}, abs=1e-5
        )
        said.add(got["classLabel"])
    assert said == set(names)
    report = verify(model, package, sample_images(96)).require()
    assert report.comparisons[0].top1_agreement == 1


def test_one_logit_of_the_other_sign_is_no_agreement(tmp_path):
    model = binary("dog", "cat")
    package = export(model, tmp_path / "x.mlpackage")
    head = model.head.linear
    head.weight, head.bias = -head.weight, -head.bias
    assert verify(model, package, sample_images(96)).comparisons[0].top1_agreement == 0


def test_a_search_for_one_logit_sees_what_errors_cost(tmp_path):
    from converters.compress.calibrate import calibrate
    from converters.compress.sensitivity import output_gradients

    calibration = calibrate(function_of(binary("dog", "cat")), sample_images(96) * 2)
    gradients = output_gradients(calibration)
    assert all(g.max() > 0 for path, g in gradients.items() if path.endswith("weight"))


@pytest.mark.parametrize("option", ["top_k", "batch_size"])
@pytest.mark.parametrize("number", [0, -1, 1.5, "2", None])
def test_an_impossible_number_is_refused_and_not_answered_with_nothing(
    model, images, option, number
):
    with pytest.raises(ConfigError, match=f"{option} is a number of .*, 1 or more; given"):
        classify(model, images, **{option: number})


def test_numbers_of_numpy_will_do(model, images):
    found = classify(model, images, top_k=np.int64(2), batch_size=np.int64(3))
    assert [len(row) for row in found] == [2] * len(images)


@pytest.mark.parametrize("given", ["shvit_nano", None, nn.Linear(3, 3)], ids=repr)
def test_what_is_no_model_is_named(images, given, tmp_path):
    for refused in (lambda: classify(given, images), lambda: save_model(given, tmp_path / "x")):
        with pytest.raises(ConfigError, match=r"is no model of ours; ondevice\.load"):
            refused()


def test_a_contract_is_not_the_model_that_has_it(model, images):
    for given in (model, model.info, None, {"size": 64}):
        with pytest.raises(ConfigError, match=r"such as model\.info\.preprocess; given"):
            preprocess(images, given)
