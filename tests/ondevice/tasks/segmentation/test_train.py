"""From a folder of masks to a saved segmenter; killed and taken up again; what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

import ondevice
from ondevice.errors import ConfigError
from ondevice.image.open import image_size
from ondevice.tasks.segmentation.augment import MaskAugment
from ondevice.tasks.segmentation.dataset import read_mask_dataset
from ondevice.tasks.segmentation.start import SEGMENTERS
from ondevice.tasks.segmentation.task import Segmentation
from ondevice.tasks.train.fit import Callback
from ondevice.tasks.train.loader import Loader
from ondevice.tasks.train.run import train
from ondevice.tasks.train.state import state_path
from ondevice.tasks.train.trainer import Settings, Trainer

from . import scenes

QUICK = {"task": "segment", "size": 64, "epochs": 2, "batch_size": 8, "warmup": 0}
STILL = MaskAugment(zoom=(1, 1), stretch=1, flip=False, changes=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.write(tmp_path_factory.mktemp("scenes"), train=16, val=6)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "masks"
    train(folder, out, **QUICK)
    return out


def arrays(path: Path) -> dict[str, mx.array]:
    return dict(tree_flatten(ondevice.load(path).parameters()))


def test_it_learns_a_few_images_by_heart(tmp_path: Path) -> None:
    dataset = read_mask_dataset(scenes.write(tmp_path, train=6, val=1), val_share=0.2)
    model = SEGMENTERS.new("light_fpn_shvit_nano", dataset.classes, size=64)
    spec, samples = model.info.preprocess, dataset.splits["train"]
    task = Segmentation(dataset, spec)
    before = task.measure(model, "train")["train_miou"]
    settings = Settings(lr=3e-3, layer_decay=1.0, frozen_norms=False)
    trainer = Trainer(model, settings, steps=30, loss=task.loss, outputs=task.outputs)
    (batch,) = Loader(samples, spec, batch_size=6, augment=STILL).epoch()
    pixels, targets = task.batch(batch, 0, np.random.default_rng(0))
    losses = [trainer.step(pixels, targets) for _ in range(30)]
    assert losses[-1] < losses[0] / 5
    after = task.measure(model.eval(), "train")["train_miou"]
    assert before < 40
    assert after > 80


def test_a_saved_segmenter_says_what_it_is(folder: Path, trained: Path) -> None:
    info = ondevice.load(trained).info
    assert info.model == "light_fpn_shvit_nano"
    assert info.labels == scenes.CLASSES
    assert (info.license, info.tag, info.preprocess.size) == ("mit", "", 64)
    assert "its backbone from shvit_nano.cifar10 (licence mit)" in info.provenance
    assert {"method", "val_miou", "val_pixel_accuracy", "skipped"} <= info.metrics.keys()
    rows = list(csv.DictReader((trained / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    best = max(float(row["val_miou"]) for row in rows)
    assert info.metrics["val_miou"] == pytest.approx(100 * best, abs=0.01)
    assert "validation mIoU, %" in (trained / "history.svg").read_text()
    split = list(csv.DictReader((trained / "split.csv").read_text().splitlines()))
    assert [row["split"] for row in split].count("val") == 6
    assert {name for row in split for name in row["label"].split()} == {*scenes.CLASSES}


def test_it_is_measured_as_evaluate_does(folder: Path, trained: Path, ondevice_: Any) -> None:
    status, out, err = ondevice_("evaluate", trained, "--images", folder, "--json")
    assert (status, err) == (0, f"{folder}: images for val\n")
    (found,) = json.loads(out)["models"]
    metrics = ondevice.load(trained).info.metrics
    assert found["images"] == metrics["val_images"] == 6
    assert 100 * found["mIoU"] == pytest.approx(metrics["val_miou"], abs=0.1)
    assert 100 * found["pixel_accuracy"] == pytest.approx(
        metrics["val_pixel_accuracy"], abs=0.1
    )


def test_from_masks_to_a_package(
    folder: Path, trained: Path, tmp_path: Path, ondevice_: Any
) -> None:
    package = tmp_path / "masks.mlpackage"
    outputs = ("--output", "mask", "--output", "mask_image")
    assert ondevice_("export", trained, *outputs, "--out", package)[0] == 0
    photos = folder / "val"
    assert ondevice_("verify", package, "--model", trained, "--images", photos)[0] == 0
    _, out, _ = ondevice_("evaluate", trained, package, "--images", folder, "--json")
    mlx, half = json.loads(out)["models"]
    assert half["mIoU"] == pytest.approx(mlx["mIoU"], abs=0.02)
    drawn = tmp_path / "drawn.png"
    args = ("segment", photos / "000.png", "--model", trained, "--out", drawn, "--json")
    status, out, _ = ondevice_(*args)
    assert status == 0
    assert [c["name"] for c in json.loads(out)["categories"]] == [*scenes.CLASSES]
    assert image_size(drawn) == (64, 64)


def test_a_stopped_training_goes_on_to_the_same_bits(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    class Stop(Callback):
        def on_step(self, done: int, total: int, loss: float) -> None:
            if done == 3:
                raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(folder, out, **QUICK, callbacks=[Stop()])
    assert state_path(out).exists()
    train(folder, out, **QUICK, resume=True)
    whole, stopped = arrays(trained), arrays(out)
    assert whole.keys() == stopped.keys()
    assert all(np.array_equal(v, stopped[k]) for k, v in whole.items())


def test_a_training_does_not_go_on_with_other_masks(folder: Path, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_epoch(self, epoch: Any) -> None:
            raise KeyboardInterrupt

    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(folder, images)
    with pytest.raises(KeyboardInterrupt):
        train(images, out, **QUICK, callbacks=[Stop()])
    path = images / "train_masks" / "000.png"
    Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    with pytest.raises(ConfigError, match="images, classes or their split have changed"):
        train(images, out, **QUICK, resume=True)


def test_it_goes_on_from_a_saved_segmenter(folder: Path, trained: Path, tmp_path: Path) -> None:
    """With the classes it knows as they are, and new scores of others."""
    frozen = {**QUICK, "epochs": 1, "lr": 1e-12, "model": str(trained)}
    train(folder, tmp_path / "second", **frozen)
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    (images / "classes.txt").write_text("background\nstick\nsquare\n")
    model = train(images, tmp_path / "third", **frozen)
    assert model.info.labels == ("background", "stick", "square")
    first, second, third = map(arrays, (trained, tmp_path / "second", tmp_path / "third"))
    key = "decode_head.classifier.weight"
    np.testing.assert_allclose(first[key], second[key], atol=1e-6)
    assert float(mx.abs(first[key] - third[key]).max()) > 0.01
    name = "decode_head.blocks.0.pointwise.conv.weight"
    np.testing.assert_allclose(first[name], third[name], atol=1e-6)


def test_segformer_can_be_trained_too(folder: Path) -> None:
    dataset = read_mask_dataset(folder, val_share=0.2)
    model = SEGMENTERS.new("segformer_b0", dataset.classes, size=64, pretrained=False)
    assert model(mx.zeros((1, 64, 64, 3))).shape == (1, 16, 16, 3)
    assert model.info.license == "unknown"
    with pytest.raises(ConfigError, match="a backbone is for light_fpn_"):
        SEGMENTERS.check("segformer_b0", "shvit_nano.flowers", None)


def test_its_backbone_is_the_classifier_that_is_given(folder: Path) -> None:
    model = SEGMENTERS.new(
        "light_fpn_shvit_nano", scenes.CLASSES, backbone="shvit_nano.flowers"
    )
    given = dict(tree_flatten(ondevice.load("shvit_nano.flowers").parameters()))
    own = dict(tree_flatten(model.backbone.parameters()))
    assert own.keys() == {k for k in given if not k.startswith("head.")}
    assert all(np.array_equal(v, given[k]) for k, v in own.items())
    assert "its backbone from shvit_nano.flowers" in model.info.provenance


def test_without_a_validation_a_share_is_set_aside(tmp_path: Path) -> None:
    scenes.write(tmp_path, images=20)
    (tmp_path / "images_masks").rename(tmp_path / "masks")
    dataset = read_mask_dataset(tmp_path, val_share=0.25)
    assert [len(dataset.splits[s]) for s in ("train", "val")] == [15, 5]
    paths = [s.path for own in dataset.splits.values() for s in own]
    assert len({*paths}) == 20


def test_classes_without_a_name_do_not_count(folder: Path, tmp_path: Path) -> None:
    named = read_mask_dataset(folder, val_share=0.2)
    shutil.copytree(folder, tmp_path / "some")
    (tmp_path / "some" / "classes.txt").write_text("\nbar\nsquare\n")
    some = read_mask_dataset(tmp_path / "some", val_share=0.2)
    assert some.classes == ("bar", "square")
    assert some.counts() == named.counts()[1:]
    there = some.splits["train"][0].label.classes()
    wanted = named.splits["train"][0].label.classes()
    assert (there == np.where(wanted > 0, wanted - 1, -1)).all()


def test_photos_that_cannot_be_read_are_left_out(
    folder: Path, tmp_path: Path, ondevice_: Any
) -> None:
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    (images / "train" / "003.png").write_text("none")
    shutil.copy(images / "val_masks" / "000.png", images / "val_masks" / "lone.png")
    args = ("train", images, "--task", "segment", "--size", 64, "--epochs", 1)
    status, out, err = ondevice_(*args, "--out", tmp_path / "out", "--json")
    assert status == 3
    assert "003.png" in json.loads(out)["skipped"][0]
    assert "skipped: " in err
    assert "val_masks: masks without an image are not used: lone.png" in err


def change(name: str, text: str | None = None) -> Callable[[Path], object]:
    """Replaces a text file, or takes a file away."""
    return lambda folder: (
        (folder / name).unlink() if text is None else (folder / name).write_text(text)
    )


def small_mask(folder: Path) -> None:
    Image.new("L", (32, 48)).save(folder / "train_masks" / "002.png")


def unknown_class(folder: Path) -> None:
    for number in range(7):
        Image.new("L", (64, 64), 9).save(folder / "train_masks" / f"00{number}.png")


def colours(folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(folder / "val_masks" / "002.png")


def no_square(folder: Path) -> None:
    for path in (folder / "train_masks").iterdir():
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 2, 0, mask).astype(np.uint8)).save(path)


def nothing_counts(folder: Path) -> None:
    for path in (folder / "val_masks").iterdir():
        Image.new("L", (64, 64), 255).save(path)


def no_masks(folder: Path) -> None:
    for name in ("train_masks", "val_masks"):
        shutil.rmtree(folder / name)


def two_of_one_split(folder: Path) -> None:
    for name in ("val", "val_masks"):
        shutil.copytree(folder / name, folder / name.replace("val", "valid"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change("train_masks/001.png"), "train_masks has no masks of 001.png"),
        (change("val_masks/001.png"), "val_masks has no masks of 001.png"),
        (change("train_masks/001.png", "none"), "001.png cannot be read"),
        (small_mask, "002.png has 32 x 48 pixels, its photo 64 x 64"),
        (unknown_class, "has 9, which is no class's number; and 2 more; "),
        (unknown_class, "classes.txt names the numbers 0 to 2, and 255 does not count"),
        (colours, "002.png is RGB; a mask has a number a pixel"),
        (no_masks, "has no masks; expected PNG files"),
        (no_square, "no pixel of square to train on; empty its line in classes.txt"),
        (nothing_counts, "none of the 6 usable images for val has a pixel that counts"),
        (change("classes.txt"), "classes.txt names no class; expected a name a line"),
        (change("classes.txt", "bar\n\n"), "classes.txt names one class, bar; expected"),
        (change("classes.txt", "bar\nbar\n"), "classes.txt has bar more than once"),
        (two_of_one_split, "val and valid are both images for val; keep one of them"),
    ],
)
def test_what_cannot_be_learned_is_said_in_one_line(
    folder: Path,
    tmp_path: Path,
    ondevice_: Any,
    spoil: Callable[[Path], object],
    said: str,
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(folder, images)
    spoil(images)
    status, _, err = ondevice_("train", images, "--task", "segment", "--out", out)
    assert status == 2
    (line,) = err.strip().splitlines()
    assert said in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "shvit_nano"], "shvit_nano is no segmenter to train"),
        (["--model", "light_detr_shvit_nano"], "`ondevice list 'light_fpn_*'` has some"),
        (["--size", "100"], "size is 100, but light_fpn_shvit_nano takes multiples of 16"),
        (["--backbone", "shvit_s1.in1k"], "shvit_s1.in1k is of shvit_s1"),
        (["--label-smoothing", "0.2"], "--label-smoothing not for --task segment"),
        (["--recipe", "palette4"], "--recipe not for --task segment"),
        (["--method", "probe"], "task segment is trained by method full, not probe"),
    ],
)
def test_what_does_not_apply_is_refused(
    folder: Path, tmp_path: Path, ondevice_: Any, options: list[str], said: str
) -> None:
    args = ("train", folder, "--task", "segment", "--out", tmp_path / "out", *options)
    status, _, err = ondevice_(*args)
    assert status == 2
    assert said in err


def test_masks_are_not_taken_for_classes(folder: Path, tmp_path: Path, ondevice_: Any) -> None:
    """Two folders of images with the same names would be."""
    for images in (folder, tmp_path):
        if images is tmp_path:
            shutil.copytree(folder / "train", tmp_path / "images")
            shutil.copytree(folder / "train_masks", tmp_path / "masks")
        status, _, err = ondevice_("train", images, "--out", tmp_path / "out")
        assert status == 2
        assert err.endswith("has images with masks: are they for --task segment?\n")


def test_python_refuses_the_same(folder: Path, tmp_path: Path) -> None:
    from ondevice.tasks.detection.augment import BoxAugment

    with pytest.raises(ConfigError, match="label_smoothing: not for task segment"):
        train(folder, tmp_path / "out", **QUICK, label_smoothing=0.1)
    with pytest.raises(ConfigError, match="BoxAugment changes no masks: use MaskAugment"):
        train(folder, tmp_path / "out", **QUICK, augment=BoxAugment())
