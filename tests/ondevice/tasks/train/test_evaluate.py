"""Evaluations of models and packages, and the whole chain as a newcomer runs it."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

import ondevice
from ondevice.errors import ConfigError, ImageError
from ondevice.tasks.train.dataset import Sample
from ondevice.tasks.train.evaluate import (
    Scorer,
    evaluate,
    figures,
    labelled_images,
    model_scorer,
)
from ondevice.tasks.train.report import to_html

from . import photos

CLASSES = ("a", "b", "c")


def scorer(name, said, classes=CLASSES, missing=()):
    """One that is sure of the class at each position."""
    positions = np.array([i for i in range(len(said)) if i not in missing])
    logits = 5 * np.eye(len(classes))[np.array(said)[positions]]

    def scores(paths, on_error):
        for i in missing:
            on_error(i, ImageError(f"{paths[i]} is damaged"))
        return logits, positions

    return Scorer(name, tuple(classes), scores)


SAMPLES = [Sample(f"{i}.png", label) for i, label in enumerate((0, 0, 1, 1, 1, 2))]


def test_figures_of_a_model():
    logits = 5 * np.eye(3)[[0, 1, 1, 1, 0, 2]]
    found = figures("m", CLASSES, logits, SAMPLES)
    assert found.top1 == pytest.approx(4 / 6)
    assert found.top5 is None
    assert found.confusion == ((1, 1, 0), (1, 2, 0), (0, 0, 1))
    assert [c.recall for c in found.per_class] == pytest.approx([1 / 2, 2 / 3, 1])
    assert found.macro_f1 == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert [(m.path, m.shown, m.said) for m in found.worst] == [
        ("1.png", "a", "b"),
        ("4.png", "b", "a"),
    ]


def test_models_are_compared_on_the_images_that_both_can_read():
    problems = {}
    first = scorer("one", [0, 0, 1, 1, 1, 2])
    second = scorer("two", [0, 2, 2, 2, 2, 0], ("a", "c", "b"), missing=(5,))  # b and c swapped
    evaluations, (comparison,) = evaluate([first, second], SAMPLES, problems.__setitem__)
    assert [e.images for e in evaluations] == [5, 5]
    assert [e.top1 for e in evaluations] == [1, pytest.approx(4 / 5)]
    assert (comparison.only_first_right, comparison.only_second_right) == (1, 0)
    assert (comparison.agreement, comparison.p) == (pytest.approx(4 / 5), 1)
    assert list(problems) == [5]


def test_other_classes_are_refused():
    with pytest.raises(ConfigError, match="two has other classes than the first model"):
        evaluate([scorer("one", [0] * 6), scorer("two", [0] * 6, "abd")], SAMPLES, print)


def test_folders_that_name_no_class_are_refused(tmp_path):
    photos.write(tmp_path, 2)
    with pytest.raises(ConfigError, match="no class is called green; the model has blue, red"):
        labelled_images(tmp_path, ("blue", "red"))
    samples, split = labelled_images(tmp_path, ("red", "green", "blue", "more"))
    assert {s.path.split("/")[-2]: s.label for s in samples} == {
        "red": 0,
        "green": 1,
        "blue": 2,
    }
    assert split == ""


def test_a_test_folder_is_preferred(tmp_path):
    for i, split in enumerate(("train", "val", "test")):
        photos.write(tmp_path / split, i + 1)
    samples, split = labelled_images(tmp_path, tuple(photos.COLORS))
    assert (split, len(samples)) == ("test", 9)


def test_a_model_without_labels_is_refused():
    with pytest.raises(ConfigError, match="names no classes"):
        model_scorer(ondevice.create_model("shvit_nano"))


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_report_escapes_names_and_loads_nothing(tmp_path):
    path = str(tmp_path / "<script>x.png")
    photos.photo((9, 9, 9), 0).save(path)
    samples = [Sample(path, 0), Sample("gone.png", 1)]
    names = ("<script>alert(1)</script>", "b&c")
    found = figures('"><img src=x>', names, np.array([[0.0, 9], [9.0, 0]]), samples)
    page = Tags()
    page.feed(to_html([found, found], []))
    tags = {tag for tag, _ in page.found}
    assert "script" not in tags
    images = [attrs for tag, attrs in page.found if tag == "img"]
    assert [image["src"][:22] for image in images] == ["data:image/jpeg;base64"]
    assert tags >= {"table", "figure", "h1"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Sixty tiny images, and a model of them."""
    folder = tmp_path_factory.mktemp("chain")
    photos.write(folder / "photos", 20)
    return folder


def test_the_whole_chain(trained, ondevice_):
    """train, evaluate, export, verify and classify, as the README has them."""
    out, package, images = (trained / name for name in ("model", "model.mlpackage", "photos"))
    command = ("train", images, "--model", "shvit_nano.cifar10", "--out", out, "--json")
    status, text, err = ondevice_(*command, "--method", "full", "--epochs", 4, "--size", 64)
    assert status == 0, err
    assert json.loads(text)["val_top1"] >= 75
    assert err.count("epoch ") == 4
    status, _, err = ondevice_("export", out, "--recipe", "palette6", "--out", package)
    assert status == 0, err
    page = trained / "report.html"
    command = ("evaluate", out, package, "--images", images, "--html", page, "--json")
    status, text, err = ondevice_(*command)
    assert status == 0, err
    found = json.loads(text)
    ours, theirs = found["models"]
    assert ours["images"] == theirs["images"] == 12  # those that it was not trained on
    assert "was trained on 48 of the images: left out" in err
    assert ours["top1"] > 0.8
    assert found["comparisons"][0]["agreement"] > 0.9
    assert page.read_text().startswith("<!doctype html>")
    status, _, err = ondevice_("verify", package, "--model", out, "--images", images)
    assert status == 0, err
    status, text, _ = ondevice_("classify", images / "red" / "00.png", "--model", out)
    assert status == 0
    assert {name for name in photos.COLORS if name in text} == {*photos.COLORS}


def test_skipped_images_are_named_with_status_3(trained, ondevice_, tmp_path):
    images = tmp_path / "photos"
    shutil.copytree(trained / "photos", images)
    (images / "red" / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "model"
    command = ("train", images, "--model", "shvit_nano.cifar10", "--out", out)
    status, _, err = ondevice_(*command, "--method", "probe")
    assert status == 3
    assert "skipped: " in err
    assert "broken.png is not an image" in err
    status, text, err = ondevice_("evaluate", out, "--images", images)
    assert status == 3
    assert "was trained on 48 of the images: left out" in err
    assert "1 of 13 files skipped" in err
    assert "95 % interval" in text


def test_images_that_a_model_was_trained_on_are_left_out(trained, ondevice_, tmp_path):
    out, images = tmp_path / "model", tmp_path / "photos"
    photos.write(images / "train", 6)
    photos.write(images / "val", 2)
    command = ("train", images, "--model", "shvit_nano.cifar10", "--out", out)
    assert ondevice_(*command, "--method", "knn")[0] == 3  # copies, which leave training
    status, text, err = ondevice_(
        "evaluate", out, "--images", photos.write(tmp_path / "a", 8), "--json"
    )
    assert (status, json.loads(text)["models"][0]["images"]) == (0, 12)
    assert err == f"{out} was trained on 12 of the images: left out\n"
    for name in photos.COLORS:
        for i in (0, 1):
            (images / "train" / name / f"{i:02}.png").unlink()
    status, text, err = ondevice_("evaluate", out, "--images", images / "train", "--json")
    assert (status, json.loads(text)["models"][0]["images"]) == (0, 12)
    assert err == f"warning: {out} was trained on all of these images\n"


def test_images_that_a_table_lists_and_nobody_has_are_skipped(trained, ondevice_, tmp_path):
    out = tmp_path / "model"
    command = ("train", trained / "photos", "--model", "shvit_nano.cifar10", "--out", out)
    assert ondevice_(*command, "--method", "knn")[0] == 0
    images = photos.write(tmp_path / "more", 30)
    rows = [f"{c}/{i:02}.png,{c}" for c in photos.COLORS for i in (25, 99)]
    (images / "labels.csv").write_text("\n".join(["file_name,label", *rows]))
    status, text, err = ondevice_("evaluate", out, "--images", images, "--json")
    assert (status, json.loads(text)["models"][0]["images"]) == (3, 3)
    assert err.count("99.png cannot be opened: No such file") == 3


def test_no_usable_image_is_status_2_and_each_is_named(ondevice_, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"nothing")
    status, text, err = ondevice_("evaluate", "shvit_nano.cifar10", "--images", tmp_path)
    assert (status, text) == (2, "")
    assert err.count("a.png is not an image") == 2
    assert err.endswith("error: none of 2 files is a usable image\n")


REFUSED = {
    "option": (("--method", "knn", "--epochs", 3), "--epochs not for --method knn"),
    "two": (("--method", "probe", "--lr", 1, "--ema", 0.5), "--lr, --ema not for --method"),
    "balance": (("--method", "knn", "--balance"), "--balance not for --method knn"),
    "settings": (("--epochs", 0, "--ema", 2), "impossible settings: epochs=0, ema=2.0"),
    "model": (("--model", "shvit_nanoo"), "did you mean shvit_nano"),
    "images": (("--model", "shvit_nano.cifar10", "--size", 7), "takes multiples of 16"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_commands_are_one_line(trained, ondevice_, tmp_path, case):
    options, message = REFUSED[case]
    status, text, err = ondevice_(
        "train", trained / "photos", "--out", tmp_path / "x", *options
    )
    assert (status, text) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
