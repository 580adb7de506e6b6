"""From a folder of boxes to a saved detector; killed and taken up again; what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import ondevice
from ondevice.cli import run
from ondevice.errors import ConfigError
from ondevice.tasks.detection.dataset import read_boxes
from ondevice.tasks.detection.start import DETECTORS
from ondevice.tasks.detection.task import Detection
from ondevice.tasks.train.fit import Callback
from ondevice.tasks.train.loader import Loader
from ondevice.tasks.train.run import train
from ondevice.tasks.train.state import state_path
from ondevice.tasks.train.trainer import Settings, Trainer

from . import scenes

QUICK = {"task": "detect", "size": 64, "epochs": 2, "batch_size": 8, "warmup": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return scenes.write(tmp_path_factory.mktemp("scenes"), train=16, valid=8)


def arrays(path):
    return dict(tree_flatten(ondevice.load(path).parameters()))


def test_it_learns_a_few_images_by_heart(tmp_path):
    dataset = read_boxes(scenes.write(tmp_path, train=3, valid=1), val_share=0.2)
    model = DETECTORS.new("light_detr_shvit_nano", dataset.classes, size=64)
    spec, samples = model.info.preprocess, dataset.splits["train"]
    task = Detection(dataset, spec)
    settings = Settings(lr=3e-3, layer_decay=1.0, frozen_norms=False)
    trainer = Trainer(model, settings, steps=50, loss=task.loss, outputs=task.outputs)
    (batch,) = Loader(samples, spec, batch_size=3).epoch()
    pixels, targets = task.batch(batch, 0, np.random.default_rng(0))
    losses = [trainer.step(pixels, targets) for _ in range(50)]
    assert losses[-1] < losses[0] / 2
    assert task.measure(model.eval(), "train")["train_ap50"] > 90


def test_a_saved_detector_says_what_it_is(folder, tmp_path):
    out = tmp_path / "boxes"
    model = train(folder, out, **QUICK)
    info = ondevice.load(out).info
    assert asdict(info) == asdict(model.info)
    assert info.model == "light_detr_shvit_nano"
    assert (info.license, info.tag, info.preprocess.size) == ("mit", "", 64)
    assert "its backbone from shvit_nano.cifar10 (licence mit)" in info.provenance
    assert info.preprocess.mean == ondevice.load("shvit_nano.cifar10").info.preprocess.mean
    assert {"method", "val_ap", "val_ap50", "val_ap75", "skipped"} <= info.metrics.keys()
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["val_ap"]) <= 1 for row in rows)
    assert "validation AP, %" in (out / "history.svg").read_text()
    split = list(csv.DictReader((out / "split.csv").read_text().splitlines()))
    assert [row["split"] for row in split].count("val") == 8
    assert {row["label"] for row in split} <= {"bar", "square", "bar square"}


def test_a_stopped_training_goes_on_to_the_same_bits(folder, tmp_path):
    class Stop(Callback):
        def on_step(self, done, total, loss):
            if done == 3:
                raise KeyboardInterrupt

    train(folder, tmp_path / "whole", **QUICK)
    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "stopped", **QUICK, callbacks=[Stop()])
    assert state_path(tmp_path / "stopped").exists()
    train(folder, tmp_path / "stopped", **QUICK, resume=True)
    whole, stopped = arrays(tmp_path / "whole"), arrays(tmp_path / "stopped")
    assert whole.keys() == stopped.keys()
    assert all(np.array_equal(v, stopped[k]) for k, v in whole.items())


def test_it_goes_on_from_a_saved_detector(folder, tmp_path):
    """With the classes it knows as they are, and new scores of others."""
    train(folder, tmp_path / "first", **QUICK)
    frozen = {**QUICK, "epochs": 1, "lr": 1e-12, "model": str(tmp_path / "first")}
    train(folder, tmp_path / "second", **frozen)
    first, second = arrays(tmp_path / "first"), arrays(tmp_path / "second")
    key = "decoder.class_embed.1.weight"
    np.testing.assert_allclose(first[key], second[key], atol=1e-6)
    other = tmp_path / "others"
    other.mkdir()
    for split in ("train", "valid"):
        (other / split).mkdir()
        for path in (folder / split).iterdir():
            text = path.read_bytes().replace(b'"name": "bar"', b'"name": "stick"')
            (other / split / path.name).write_bytes(text)
    model = train(other, tmp_path / "third", **frozen)
    third = arrays(tmp_path / "third")
    assert model.info.labels == ("stick", "square")
    assert float(mx.abs(first[key] - third[key]).max()) > 0.01
    name = "decoder.layers.0.mlp.fc1.weight"
    np.testing.assert_allclose(first[name], third[name], atol=1e-6)


def test_boxes_are_parts_of_the_image(folder):
    dataset = read_boxes(folder, val_share=0.2)
    sample = dataset.splits["train"][0]
    image = dataset.truth[sample.path]
    for (number, *box), wanted, kind in zip(
        sample.label, image.boxes, image.classes, strict=True
    ):
        x, y, w, h = wanted / scenes.SIDE
        assert number == kind
        np.testing.assert_allclose(box, (x + w / 2, y + h / 2, w, h), atol=1e-6)


def test_without_a_validation_a_share_is_set_aside(tmp_path):
    folder = scenes.write(tmp_path, train=20)
    dataset = read_boxes(folder, val_share=0.25)
    assert [len(dataset.splits[s]) for s in ("train", "val")] == [15, 5]
    paths = [s.path for own in dataset.splits.values() for s in own]
    assert len({*paths}) == 20


def test_what_is_of_another_size_than_its_boxes_is_left_out(tmp_path):
    folder = scenes.write(tmp_path, train=12, valid=4)
    photo = folder / "train" / "003.png"
    from PIL import Image

    Image.open(photo).resize((32, 32)).save(photo)
    dataset = read_boxes(folder, val_share=0.2)
    assert len(dataset.splits["train"]) == 11
    assert "32 x 32" in dataset.skipped[0]


def edited(tmp_path, change):
    folder = scenes.write(tmp_path / "edited", train=8, valid=4)
    path = folder / "train" / "_annotations.coco.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return folder


def no_boxes(data):
    data["annotations"] = []


def one_class_less(data):
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] == 5]


def renamed(data):
    data["categories"][0]["name"] = "stick"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_boxes, "none of the 8 usable images for train has a box"),
        (one_class_less, "no box of square to train on"),
        (renamed, "differ in their classes: bar, stick"),
    ],
)
def test_what_cannot_be_learned_is_said_in_one_line(tmp_path, capsys, change, said):
    folder = edited(tmp_path, change)
    out = tmp_path / "out"
    assert run(["train", str(folder), "--task", "detect", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert said in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "shvit_nano"], "shvit_nano is no detector to train"),
        (["--model", "rf_detr_nano"], "rf_detr_nano is no detector to train"),
        (["--size", "100"], "size is 100, but light_detr_shvit_nano takes multiples of 64"),
        (["--backbone", "shvit_s1.in1k"], "shvit_s1.in1k is of shvit_s1"),
        (["--label-smoothing", "0.2"], "--label-smoothing not for --task detect"),
        (["--teacher", "x", "--balance"], "--balance, --teacher not for --task detect"),
        (["--recipe", "palette4"], "--recipe not for --task detect"),
        (["--method", "probe"], "task detect is trained by method full, not probe"),
    ],
)
def test_what_does_not_apply_is_refused(folder, tmp_path, capsys, options, said):
    command = ["train", str(folder), "--task", "detect", "--out", str(tmp_path / "out")]
    assert run([*command, *options]) == 2
    assert said in capsys.readouterr().err


def test_a_backbone_is_no_option_of_classifiers(folder, tmp_path, capsys):
    command = ["train", str(folder), "--out", str(tmp_path / "out")]
    assert run([*command, "--backbone", "shvit_nano.flowers"]) == 2
    assert "--backbone not for --task classify" in capsys.readouterr().err


def test_boxes_are_not_taken_for_classes(folder, tmp_path, capsys):
    assert run(["train", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "it has boxes: are they for --task detect?" in capsys.readouterr().err


def test_python_refuses_the_same(folder, tmp_path):
    with pytest.raises(ConfigError, match="label_smoothing: not for task detect"):
        train(folder, tmp_path / "out", **QUICK, label_smoothing=0.1)
    with pytest.raises(
        ConfigError, match="no task 'pose'; there are classify, detect, segment"
    ):
        train(folder, tmp_path / "out", task="pose")
