"""Steps of the trainer: what they change, and that they can be taken up again."""

from __future__ import annotations

import math
import shutil

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from ondevice import create_model
from ondevice.cpu import kernels
from ondevice.errors import ConfigError, TrainingError
from ondevice.tasks.train.optimizer import AdamW, decays, learning_rate, rate_scales
from ondevice.tasks.train.trainer import Settings, Trainer, soft_cross_entropy

TINY = {"embed_dim": (16, 24, 32), "depth": (1, 1, 1), "partial_dim": (8, 8, 8)}


def tiny(seed=0):
    mx.random.seed(seed)
    return create_model("shvit_nano", num_classes=3, **TINY)


def trainer(steps=20, **settings):
    return Trainer(tiny(), Settings(**{"batch_size": 32, **settings}), steps=steps)


def batch(size=32):
    rng = np.random.default_rng(size)
    labels = np.arange(size) % 3
    pixels = rng.integers(0, 256, (size, 32, 32, 3)).astype(np.uint8)
    pixels[np.arange(size), :, :, labels] //= 4
    return pixels, np.eye(3, dtype=np.float32)[labels]


def test_it_learns():
    some = trainer(lr=3e-3)
    losses = [some.step(*batch()) for _ in range(12)]
    assert losses[-1] < 0.6 * losses[0]


def test_adamw_is_that_of_mlx():
    x = {"a.weight": mx.random.normal((4, 3)), "b.bias": mx.random.normal((3,))}
    ours, theirs = (
        AdamW(x, weight_decay=0.0),
        optim.AdamW(0.01, bias_correction=True, weight_decay=0),
    )
    wanted = {**x}
    for _ in range(3):
        gradients = {k: mx.random.normal(v.shape) for k, v in x.items()}
        x = ours.updated(x, gradients, mx.array(0.01))
        wanted = theirs.apply_gradients(gradients, wanted)
    for key, array in x.items():
        np.testing.assert_allclose(array, wanted[key], rtol=1e-4, atol=1e-6)


def test_norms_biases_and_tables_do_not_decay():
    model = create_model("efficientvit_m0", num_classes=3)
    decaying = {
        k for k, v in Trainer(model, Settings(), steps=1).parameters().items() if decays(k, v)
    }
    assert "head.linear.weight" in decaying
    assert not [k for k in decaying if ".bn." in k or "biases" in k or k.endswith("bias")]


def test_rates_fall_from_the_head_to_the_stem():
    scales = rate_scales(trainer().parameters(), 0.5)
    assert scales["head.linear.weight"] == 1
    assert scales["stages.2.blocks.0.ffn.m.pw1.conv.weight"] == 0.5
    assert scales["patch_embed.0.conv.weight"] == min(scales.values())
    assert len({*scales.values()}) == 15


def test_behind_a_backbone_all_learn_alike():
    model = create_model("light_detr_shvit_nano")
    scales = rate_scales(Trainer(model, Settings(), steps=1).parameters(), 0.5)
    behind = {scale for name, scale in scales.items() if not name.startswith("backbone.")}
    assert behind == {1}
    assert scales["backbone.stages.2.blocks.2.ffn.m.pw1.conv.weight"] == 0.5
    assert scales["backbone.patch_embed.0.conv.weight"] == min(scales.values())


def test_the_rate_rises_then_falls():
    rates = [learning_rate(i, peak=1, warmup=4, total=24) for i in range(25)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert rates[14] == pytest.approx(0.5)
    assert rates[24] == pytest.approx(0)


def test_parts_of_a_batch_have_its_gradient():
    """Where statistics are frozen; the last part may be smaller."""
    losses = []
    for accumulate in (1, 4):
        some = trainer(batch_size=28, accumulate=accumulate)
        losses.append([some.step(*batch(27)) for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("images", [5, 25, 31])
def test_a_short_batch_has_no_part_of_one_image(images):
    """Of which batch norms would have no statistics."""
    some = trainer(batch_size=32, accumulate=8, frozen_norms=False)
    assert math.isfinite(some.step(*batch(images)))
    assert {p.stop - p.start for p in some._parts(images)} <= {2, 3, 4}
    with pytest.raises(TrainingError, match="a batch of 1 image has no statistics"):
        some.step(*batch(1))


def test_small_batches_keep_the_statistics():
    some = trainer(batch_size=16)
    before = np.array(some.arrays()["patch_embed.0.bn.running_mean"])
    some.step(*batch(16))
    np.testing.assert_array_equal(some.arrays()["patch_embed.0.bn.running_mean"], before)
    large = trainer(batch_size=32)
    large.step(*batch())
    assert not np.array_equal(large.arrays()["patch_embed.0.bn.running_mean"], before)


def test_an_average_of_weights_follows_them():
    some = trainer(ema=0.2)
    name = "head.linear.weight"
    wanted = np.array(some.arrays()[name])
    for keep in (2 / 11, 0.2):  # the first steps keep less
        some.step(*batch())
        wanted = keep * wanted + (1 - keep) * np.array(some.arrays()[name])
    np.testing.assert_allclose(some.average[name], wanted, rtol=1e-5, atol=1e-7)


def test_the_state_has_all_that_a_step_depends_on():
    options = {"drop_path": 0.3, "ema": 0.9}
    whole = trainer(**options)
    losses = [whole.step(*batch()) for _ in range(4)]
    first = trainer(**options)
    for _ in range(2):
        first.step(*batch())
    saved, done = {k: mx.array(np.array(v)) for k, v in first.state().items()}, first.done
    second = trainer(**options)
    second.restore(saved, done)
    assert [second.step(*batch()) for _ in range(2)] == losses[2:]
    wanted = whole.state()
    for key, array in second.state().items():
        np.testing.assert_array_equal(array, wanted[key], err_msg=key)


def test_a_loss_that_is_no_number_stops():
    some = trainer()
    pixels, targets = batch()
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        some.step(pixels, targets * math.nan)
    assert some.done == 0


def test_a_loss_of_ones_own():
    def focal(logits, targets):
        share = mx.softmax(logits, axis=-1)
        return -(targets * (1 - share) ** 2 * mx.log(share + 1e-9)).sum(-1).mean()

    some = Trainer(tiny(), Settings(), steps=5, loss=focal)
    assert some.step(*batch()) < trainer().step(*batch())


def test_cross_entropy_of_soft_targets():
    logits, targets = mx.array([[1.0, 2.0, 4.0]]), mx.array([[0.2, 0.0, 0.8]])
    logs = np.log(np.exp([1, 2, 4]) / np.exp([1, 2, 4]).sum())
    wanted = -(0.2 * logs[0] + 0.8 * logs[2])
    assert soft_cross_entropy(logits, targets).item() == pytest.approx(wanted, rel=1e-6)


def test_impossible_settings_are_listed():
    with pytest.raises(ConfigError, match="accumulate=3, lr=-1"):
        Settings(batch_size=32, accumulate=3, lr=-1)
    with pytest.raises(ConfigError, match="frozen_norms=False"):
        Settings(batch_size=4, accumulate=4, frozen_norms=False)
    assert Settings(batch_size=4, accumulate=4).freezes_norms


@pytest.mark.slow
def test_a_compiled_step_gives_the_same(monkeypatch):
    """As on a GPU; here MLX has a C++ compiler make it."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    plain = trainer(ema=0.9, accumulate=2)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "is_plain_cpu", lambda: False)
        compiled = trainer(ema=0.9, accumulate=2)
    for _ in range(3):
        assert compiled.step(*batch()) == pytest.approx(plain.step(*batch()), rel=1e-4)
    wanted = plain.state()
    for key, array in compiled.state().items():
        np.testing.assert_allclose(array, wanted[key], rtol=1e-2, atol=1e-3, err_msg=key)
    assert compiled.optimizer.state["steps"].item() == 3
