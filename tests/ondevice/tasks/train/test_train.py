"""From a folder of tiny images to a saved model, by each method; killed and taken up again."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import ondevice
from ondevice.errors import ConfigError, OutputError, TrainingError
from ondevice.tasks.train import classification, fit, state as states
from ondevice.tasks.train.augment import AUGMENTS
from ondevice.tasks.train.dataset import read_dataset
from ondevice.tasks.train.options import Options, augment_for
from ondevice.tasks.train.run import train
from ondevice.tasks.train.state import state_path
from ondevice.tasks.train.trainer import soft_cross_entropy
from ondevice.weights.folder import model_info

from . import photos

NANO = "shvit_nano.cifar10"
QUICK = {"model": NANO, "size": 32, "method": "full", "epochs": 3, "batch_size": 16}

HEAD = {"model": NANO, "size": 32, "method": "probe"}  # which has no epochs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("photos"), 20)


def arrays(path):
    return dict(tree_flatten(ondevice.load(path).parameters()))


def same(a, b):
    first, second = arrays(a), arrays(b)
    return first.keys() == second.keys() and all(
        np.array_equal(v, second[k]) for k, v in first.items()
    )


@pytest.mark.parametrize("method", ["knn", "probe", "full"])
def test_each_method_learns_colours(folder, tmp_path, method):
    out = tmp_path / "colours"
    options = QUICK | {"lr": 3e-3} if method == "full" else HEAD | {"method": method}
    model = train(folder, out, **options)
    saved = ondevice.load(out)
    info = saved.info
    assert info.labels == ("blue", "green", "red")
    assert (info.license, info.tag, info.top1) == ("mit", "", None)
    assert "Trained further from shvit_nano.cifar10 (licence mit)" in info.provenance
    assert info.metrics["val_top1"] >= 90
    assert info.metrics["val_images"] == 12
    assert info.metrics["method"] == method
    found = ondevice.classify(saved, [folder / name / "00.png" for name in photos.COLORS])
    assert [predictions[0].label for predictions in found] == list(photos.COLORS)
    x = mx.random.normal((1, 32, 32, 3))
    np.testing.assert_allclose(model(x), saved(x), rtol=1e-5, atol=1e-5)
    assert not state_path(out).exists()
    names = {path.name for path in out.iterdir()}
    history = {f"history.{s}" for s in ("csv", "svg", "html")} if method == "full" else set()
    assert names == {"config.json", "model.safetensors", "split.csv"} | history


def test_the_history_has_a_row_an_epoch(folder, tmp_path):
    train(folder, tmp_path / "out", **QUICK)
    rows = list(csv.DictReader((tmp_path / "out" / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(math.isfinite(float(v)) for row in rows for v in row.values())
    assert (tmp_path / "out" / "history.svg").read_text().startswith("<svg")


def test_the_same_seed_gives_the_same_bits(folder, tmp_path):
    options = {**QUICK, "drop_path": 0.1, "ema": 0.9}
    train(folder, tmp_path / "a", workers=1, **options)
    train(folder, tmp_path / "b", workers=5, **options)
    train(folder, tmp_path / "c", **options, seed=1)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


KILLED = """
import sys, ondevice
from ondevice.tasks.train.fit import Callback
from ondevice.tasks.train.run import train
class Slow(Callback):
    def on_step(self, done, total, loss):
        print("step", done, flush=True)
        if done == 5:
            sys.stdin.read()
train(sys.argv[1], sys.argv[2], model="shvit_nano.cifar10", size=32, method="full", epochs=3,
      batch_size=16, drop_path=0.1, callbacks=[Slow()])
"""


def test_a_killed_training_goes_on_to_the_same_bits(folder, tmp_path):
    options = {**QUICK, "drop_path": 0.1}
    train(folder, tmp_path / "whole", **options)
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "killed")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        for line in process.stdout:  # the second epoch, of three steps each
            if line == "step 5\n":
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
    assert not (tmp_path / "killed").exists()
    assert state_path(tmp_path / "killed").exists()
    with pytest.raises(OutputError, match="--resume goes on, --force starts over"):
        train(folder, tmp_path / "killed", **options)
    train(folder, tmp_path / "killed", **options, resume=True)
    assert same(tmp_path / "killed", tmp_path / "whole")


class Stop(fit.Callback):
    def __init__(self, after):
        self.after = after

    def on_epoch(self, epoch):
        if epoch.epoch == self.after:
            raise KeyboardInterrupt


def interrupted(folder, out, after=1, **options):
    with pytest.raises(KeyboardInterrupt):
        train(folder, out, **{**QUICK, **options}, callbacks=[Stop(after)])


def test_images_are_mirrored_unless_left_and_right_differ(folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(fit.Fit, "_step", lambda self, *given: seen.append(self.augment) or 0)
    for flip in (True, False):
        train(folder, tmp_path / str(flip), **{**QUICK, "epochs": 1}, flip=flip)
    assert {augment.flip for augment in seen} == {True, False}
    assert [augment.flip for augment in seen] == sorted((a.flip for a in seen), reverse=True)


def test_what_has_changed_is_said_on_resume(tmp_path):
    folder, out = photos.write(tmp_path / "photos", 8), tmp_path / "out"
    interrupted(folder, out)
    with pytest.raises(ConfigError, match="batch_size was 16, now 8"):
        train(folder, out, **{**QUICK, "batch_size": 8}, resume=True)
    with pytest.raises(
        ConfigError, match=r"resumed: augment.flip was True, now False; --force"
    ):
        train(folder, out, **QUICK, flip=False, resume=True)
    photos.photo((9, 9, 9), 0).save(folder / "red" / "new.png")
    with pytest.raises(ConfigError, match="images, classes or their split have changed"):
        train(folder, out, **QUICK, resume=True)
    assert state_path(out).exists()


def test_early_stopping_and_its_resume(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(classification, "top_k", lambda *_: 0.5)
    train(folder, tmp_path / "out", **{**QUICK, "epochs": 9, "patience": 2})
    rows = list(csv.DictReader((tmp_path / "out" / "history.csv").read_text().splitlines()))
    assert len(rows) == 3


def nan_after(step):
    calls = []

    def loss(logits, targets):
        calls.append(0)
        value = soft_cross_entropy(logits, targets)
        return value * math.nan if len(calls) > step else value

    return loss


def test_a_loss_that_is_no_number_keeps_the_last_state(folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match=r"is nan at step 6; .* epoch 1: --resume"):
        train(folder, out, **QUICK, loss=nan_after(5))
    assert not out.exists()
    train(folder, out, **{**QUICK, "lr": 1e-4}, resume=True)
    assert ondevice.load(out).info.metrics["val_top1"] > 0


def test_a_loss_that_is_no_number_in_the_first_epoch(folder, tmp_path):
    with pytest.raises(TrainingError, match="nothing is kept of the first epoch"):
        train(folder, tmp_path / "out", **QUICK, loss=nan_after(1))
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_not_kept(folder, tmp_path):
    """The gradient of the last step of the second epoch is NaN, its loss is not."""
    out, calls = tmp_path / "out", []

    def loss(logits, targets):
        calls.append(0)
        zero = mx.sqrt(mx.square(logits.sum()) * 0) if len(calls) == 6 else 0
        return soft_cross_entropy(logits, targets) + zero

    with pytest.raises(TrainingError, match=r"nan after epoch 2; .* epoch 1: --resume"):
        train(folder, out, **QUICK, loss=loss)
    assert not out.exists()
    train(folder, out, **QUICK, resume=True)
    train(folder, tmp_path / "whole", **QUICK)
    assert same(out, tmp_path / "whole")


def test_a_full_disk_keeps_the_state_before(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    interrupted(folder, out)
    before = state_path(out).read_bytes()

    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(states, "write_safetensors", full)
        with pytest.raises(OutputError, match="No space left"):
            train(folder, out, **QUICK, resume=True)
    assert state_path(out).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [state_path(out).name]
    train(folder, out, **QUICK, resume=True)
    train(folder, tmp_path / "whole", **QUICK)
    assert same(out, tmp_path / "whole")


def test_damage_is_skipped_and_counted(tmp_path):
    folder = photos.write(tmp_path / "photos", 10)
    for name in ("red", "blue"):
        with (folder / name / "05.png").open("r+b") as file:
            file.truncate(300)
    model = train(folder, tmp_path / "out", **QUICK)
    assert model.info.metrics["skipped"] == 2


def test_an_output_that_exists_is_kept(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(OutputError):
            train(folder, out, **QUICK, force=force)
    assert (out / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("teacher", ["", NANO])
@pytest.mark.parametrize("name", AUGMENTS)
def test_changes_of_images_have_names(folder, name, teacher):
    dataset = read_dataset(folder)
    options = Options(model=NANO, augment=name, flip=False, teacher=teacher, train_size=48)
    found = augment_for(options, dataset, model_info(NANO))
    wanted = {"flip": False, "size": 48, **({"mix": 0.0} if teacher else {})}
    assert found == replace(AUGMENTS[name], **wanted)


REFUSED = {
    "augment": ({"augment": "wild"}, "no augment 'wild'; there are light, usual, strong"),
    "text": ({"model": "mobileclip_s0"}, "compares images with texts"),
    "size": ({"size": 40}, "size is 40, but shvit_nano.cifar10 takes multiples of 16"),
    "train size": (
        {"train_size": 40},
        "train_size is 40, but shvit_nano takes multiples of 16",
    ),
    "train size of probe": (
        {"train_size": 32, "method": "probe"},
        "a train_size goes with --method full or adapter",
    ),
    "method": (
        {"method": "magic"},
        "no method 'magic'; there are auto, knn, probe, full, adapter",
    ),
    "settings of full, where auto is probe": (
        {"method": "auto", "flip": False},
        "batch_size, epochs, flip: of --method full or adapter; for 48 images .* give the",
    ),
    "settings of full of a probe": (
        {"method": "probe"},
        "batch_size, epochs: of --method full or adapter, not probe",
    ),
    "share": ({"val_share": 1.5}, "val_share is 1.5, expected a share between 0 and 1"),
    "accumulate": (
        {"accumulate": 3, "frozen_norms": True},
        "impossible settings: accumulate=3; expected accumulate: a divisor of batch_size=16",
    ),
    "seed": ({"seed": 2**64}, "impossible settings: seed=18446744073709551616; expected seed"),
    "rate": ({"lr": math.inf}, "impossible settings: lr=inf; expected lr: a finite number"),
    "random": ({"method": "probe", "pretrained": False}, "random weights have no features"),
    "setting": ({"speed": 3}, "no such setting"),
    "resume": ({"method": "knn", "resume": True}, "--resume goes with --method full"),
    "half an epoch": ({"epochs": 1.5}, "^epochs is 1.5, expected int$"),
    "words": (
        {"lr": "a", "seed": "b"},
        "^lr is 'a', expected float; seed is 'b', expected int",
    ),
    "half a seed": ({"seed": 1.5}, "^seed is 1.5, expected int$"),
    "balance": ({"balance": "yes"}, "^balance is 'yes', expected bool$"),
    "half a pixel": ({"size": 64.0}, r"^size is 64.0, expected int \| None$"),
    "size in words": ({"size": "64"}, r"^size is '64', expected int \| None$"),
    "share in words": ({"val_share": "a"}, "^val_share is 'a', expected float$"),
    "force": ({"force": "no"}, "^force is 'no', expected bool$"),
    "loss of probe": (
        {"loss": lambda model, batch: 0, "method": "probe"},
        "a loss goes with --method full or adapter",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(folder, tmp_path, case):
    options, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        train(folder, tmp_path / "out", **{**QUICK, **options})
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_head_is_refused(folder, tmp_path):
    headless = ondevice.create_model("shvit_nano", num_classes=0)
    ondevice.save_model(headless, tmp_path / "headless")
    with pytest.raises(ConfigError, match="has no head, so no classes to train"):
        train(folder, tmp_path / "out", **{**QUICK, "model": str(tmp_path / "headless")})


def test_from_random_weights_batch_norms_learn(folder, tmp_path):
    model = train(folder, tmp_path / "out", **{**QUICK, "pretrained": False})
    assert model.info.license == "unknown"
    assert "from random weights" in model.info.provenance
    statistics = model.stages[0].blocks[0].ffn.m.pw1.bn.running_mean
    assert mx.abs(statistics).max() > 0


def test_nothing_to_resume_is_said(folder, tmp_path, caplog):
    train(folder, tmp_path / "out", **{**QUICK, "epochs": 1}, resume=True)
    assert "does not exist: training starts from the beginning" in caplog.text


def test_weights_of_rare_classes(tmp_path):
    folder = photos.write(tmp_path / "photos", 12)
    for i in range(2, 12):
        (folder / "red" / f"{i:02}.png").unlink()
    model = train(folder, tmp_path / "out", **HEAD, balance=True)
    assert model.info.metrics["val_images"] == 5


def test_a_trained_folder_is_a_start_for_the_next(folder, tmp_path):
    train(folder, tmp_path / "one", **HEAD)
    model = train(folder, tmp_path / "two", **HEAD | {"model": str(tmp_path / "one")})
    assert model.info.license == "mit"
    assert json.loads((tmp_path / "two" / "config.json").read_text())["labels"]
