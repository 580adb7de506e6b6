"""A teacher that is asked once: what is kept is what it would say again."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

import ondevice
from ondevice.errors import ConfigError
from ondevice.image.preprocess import normalize
from ondevice.tasks.train import run, teacher as teachers
from ondevice.tasks.train.augment import Augment
from ondevice.tasks.train.dataset import read_dataset
from ondevice.tasks.train.loader import Loader
from ondevice.tasks.train.run import train
from ondevice.tasks.train.teacher import Teacher, ask, teacher_path
from ondevice.tasks.train.trainer import soft_cross_entropy

from . import photos
from .test_train import HEAD, QUICK, interrupted, same, state_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("photos"), 20)


@pytest.fixture(scope="module")
def teacher(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher") / "teacher"
    train(folder, out, **HEAD | {"size": 64})
    return str(out)


def test_what_is_kept_gives_the_loss_that_fresh_answers_give(folder, teacher):
    model, data = ondevice.load(teacher), read_dataset(folder)
    spec, augment, samples = model.info.preprocess, Augment(), data.splits["train"]
    kept = ask(model, data.classes, samples, spec, augment=augment, views=2, seed=3)
    loader = Loader(samples, spec, batch_size=16, augment=augment, seed=3, views=2)
    student = mx.random.normal((16, 3))
    seen = []
    for epoch in (1, 2, 3):
        batch = next(loader.epoch(epoch))
        fresh = mx.softmax(model(normalize(mx.array(batch.pixels), spec)), axis=-1)
        targets = mx.array(kept.targets(epoch, batch.positions).astype(np.float32))
        wanted = soft_cross_entropy(student, fresh).item()
        assert soft_cross_entropy(student, targets).item() == pytest.approx(wanted, rel=1e-3)
        seen.append(dict(zip(batch.positions.tolist(), batch.pixels, strict=True)))
    first, second, third = seen
    shared = first.keys() & second.keys() & third.keys()
    assert shared
    for position in shared:
        np.testing.assert_array_equal(first[position], third[position])
        assert not np.array_equal(first[position], second[position])


def test_what_is_not_kept_is_spread():
    classes, shares = np.array([[[2, 0]]], np.uint16), np.array([[[0.5, 0.25]]], np.float16)
    found = Teacher(classes, shares, 4).targets(0, np.array([0]))
    np.testing.assert_allclose(found, [[0.25, 0.125, 0.5, 0.125]])


def test_a_teacher_of_another_order_and_size(folder, teacher):
    model, data = ondevice.load(teacher), read_dataset(folder)
    spec = ondevice.create_model("shvit_nano.cifar10").info.preprocess
    samples = data.splits["train"][:8]
    one, other = (
        ask(model, classes, samples, spec, augment=Augment(), views=1)
        for classes in (data.classes, data.classes[::-1])
    )
    everyone = np.arange(8)
    np.testing.assert_allclose(
        one.targets(0, everyone), other.targets(0, everyone)[:, ::-1], atol=1e-3
    )


def test_a_student_learns_without_labels(folder, teacher, tmp_path):
    model = train(
        folder, tmp_path / "out", **{**QUICK, "lr": 3e-3, "epochs": 4}, teacher=teacher
    )
    assert model.info.metrics["val_top1"] >= 90
    assert not teacher_path(tmp_path / "out").exists()


def test_the_teacher_is_asked_once(folder, teacher, tmp_path, monkeypatch):
    calls = []
    original = run.ask
    monkeypatch.setattr(run, "ask", lambda *a, **k: calls.append(0) or original(*a, **k))
    options = {"teacher": teacher, "teacher_views": 2}
    train(folder, tmp_path / "whole", **QUICK | options)
    interrupted(folder, tmp_path / "out", **options)
    assert len(calls) == 2
    train(folder, tmp_path / "out", **QUICK | options, resume=True)
    assert len(calls) == 2
    assert same(tmp_path / "out", tmp_path / "whole")
    out = tmp_path / "two"
    interrupted(folder, out, **options)
    with pytest.raises(ConfigError, match="views was 2, now 3"):
        train(folder, out, **QUICK | options | {"teacher_views": 3}, resume=True)
    teacher_path(out).write_bytes(b"not whole")
    train(folder, out, **QUICK | options, resume=True)
    assert len(calls) == 4
    assert not state_path(out).exists()


REFUSED = {
    "classes": (
        {"teacher": "shvit_nano.cifar10"},
        "has the classes airplane, .* \\(10\\), not",
    ),
    "probe": ({"teacher": "TEACHER", "method": "probe"}, "goes with --method full"),
    "mix": ({"teacher": "TEACHER", "augment": Augment(mix=0.5)}, "mix is 0.5"),
    "views": ({"teacher": "TEACHER", "teacher_views": 0}, "teacher_views is 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(folder, teacher, tmp_path, case):
    options, message = REFUSED[case]
    if options["teacher"] == "TEACHER":
        options = options | {"teacher": teacher}
    with pytest.raises(ConfigError, match=message):
        train(folder, tmp_path / "out", **QUICK | options)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_before_anything_is_trained(folder, teacher, tmp_path, monkeypatch):
    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(teachers, "write_safetensors", full)
    with pytest.raises(ondevice.OnDeviceError, match="No space left"):
        train(folder, tmp_path / "out", **QUICK, teacher=teacher)
    assert not list(tmp_path.iterdir())
