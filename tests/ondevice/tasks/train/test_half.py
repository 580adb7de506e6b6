"""Steps in half precision: near those in float32, kept in float32, or refused."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import ondevice
from ondevice.errors import ConfigError, TrainingError
from ondevice.tasks.train import half
from ondevice.tasks.train.half import LossScale, check_precision
from ondevice.tasks.train.run import train
from ondevice.tasks.train.trainer import Settings, Trainer

from . import photos
from .test_train import QUICK, interrupted, same
from .test_trainer import batch, trainer

HALVES = ("bfloat16", "float16")


def gradients(precision):
    """All of a trained model's on some images, end to end."""
    model = ondevice.create_model("shvit_nano.cifar10", pretrained=True)
    some = Trainer(model, Settings(precision=precision, frozen_norms=True), steps=9)
    pixels = np.stack(
        [np.array(photos.photo((99, 40, 9 * i), i, 64))[:, :64] for i in range(16)]
    )
    targets, scale = mx.eye(10)[mx.arange(16) % 10], some.scale.value
    _, found = some._gradients(mx.array(pixels), targets, mx.array(scale), {})
    assert {g.dtype for g in found.values()} == {mx.float32}
    return np.concatenate([np.array(g).ravel() / scale for g in found.values()])


def test_gradients_are_near_those_in_float32():
    wanted = gradients("float32")
    for precision, bound in (("bfloat16", 0.25), ("float16", 0.1)):
        error = np.linalg.norm(gradients(precision) - wanted)
        assert 0 < error < bound * np.linalg.norm(wanted)


@pytest.mark.parametrize("precision", HALVES)
def test_what_is_kept_is_float32_and_learns(precision):
    some = trainer(lr=3e-3, precision=precision)
    computed = []
    some.loss = lambda logits, targets, own=some.loss: (
        computed.append(some.model.head.linear.weight.dtype) or own(logits, targets)
    )
    losses = [some.step(*batch()) for _ in range(12)]
    assert losses[-1] < 0.6 * losses[0]
    assert {*computed} == {half.PRECISIONS[precision]}
    assert {v.dtype for v in some.state().values()} == {mx.float32}


def test_frozen_weights_are_kept_too(tmp_path):
    folder = photos.write(tmp_path / "photos", 12)
    model = train(
        folder, tmp_path / "out", **QUICK | {"method": "adapter", "precision": "bfloat16"}
    )
    base = ondevice.create_model(QUICK["model"], pretrained=True)
    kept = dict(tree_flatten(model.parameters()))
    for path, array in tree_flatten(base.stages[0].parameters()):
        np.testing.assert_array_equal(kept[f"stages.0.{path}"], array)


def test_a_scale_falls_until_gradients_fit_and_rises_again(monkeypatch):
    monkeypatch.setattr(half, "STEPS_UP", 2)
    scale, large, small = LossScale("float16"), mx.array([mx.inf]), mx.array([1.0])
    assert not scale.fits({"a": small, "b": large})
    assert scale.value == half.FIRST_SCALE / 2
    assert scale.fits({"a": small})
    assert scale.fits({"a": small})
    assert scale.value == half.FIRST_SCALE
    scale.state = [0.5, 0.0]
    with pytest.raises(TrainingError, match="too large for float16"):
        scale.fits({"a": large})
    assert LossScale("bfloat16").fits({"a": large})


def test_a_step_that_overflows_is_left_out():
    some = trainer(precision="float16")
    some.scale.state = [2.0**40, 0.0]
    before = {k: np.array(v) for k, v in some.parameters().items()}
    some.step(*batch())
    assert some.done == 1
    assert some.scale.value == 2.0**39
    for key, array in some.parameters().items():
        np.testing.assert_array_equal(array, before[key], err_msg=key)


def test_what_does_not_hold_is_refused():
    model = ondevice.create_model("shvit_nano", num_classes=3)
    norm = model.stages[0].blocks[0].ffn.m.pw2.bn
    images = [np.full((32, 32, 3), 90, np.uint8) + np.arange(3, dtype=np.uint8)] * 2
    for precision in HALVES:
        check_precision(model, precision, images)
    norm.bias = norm.bias + 1e5
    with pytest.raises(ConfigError, match="precision float16 does not hold for shvit_nano"):
        check_precision(model, "float16", images)
    assert norm.bias.dtype == mx.float32
    check_precision(model, "bfloat16", images)


def test_an_interrupted_one_goes_on_to_the_same_bits(tmp_path):
    folder = photos.write(tmp_path / "photos", 12)
    options = {"precision": "float16", "size": 32}
    train(folder, tmp_path / "whole", **QUICK | options)
    interrupted(folder, tmp_path / "out", **options)
    train(folder, tmp_path / "out", **QUICK | options, resume=True)
    assert same(tmp_path / "out", tmp_path / "whole")


def test_rounded_weights_need_float32():
    with pytest.raises(ConfigError, match="precision='float16'"):
        Settings(precision="float16", qat_epochs=1)
    with pytest.raises(ConfigError, match="precision='int8'"):
        Settings(precision="int8")
