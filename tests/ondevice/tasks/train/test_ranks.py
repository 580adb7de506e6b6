"""Ranks that share each batch, over MLX's ring on loopback: the same steps as one process."""

from __future__ import annotations

import signal

import mlx.core as mx
import numpy as np
import pytest

import ondevice
from ondevice.errors import ConfigError
from ondevice.tasks.train.augment import Augment
from ondevice.tasks.train.dataset import read_dataset
from ondevice.tasks.train.loader import Loader
from ondevice.tasks.train.run import train
from ondevice.tasks.train.state import state_path
from ondevice.tasks.train.trainer import Settings, Trainer

from ....support.ranks import run_ranks
from . import photos
from .test_train import QUICK, arrays
from .test_trainer import batch, tiny

STEPS = """
import sys
import mlx.core as mx
from ondevice.tasks.ranks import Ranks
from ondevice.tasks.train.trainer import Settings, Trainer
from tests.ondevice.tasks.train.test_trainer import batch, tiny

ranks = Ranks(mx.distributed.init())
trainer = Trainer(tiny(), Settings(batch_size=8), steps=9, ranks=ranks)
pixels, targets = batch(16)
own = slice(ranks.rank, None, ranks.size)
losses = [trainer.step(pixels[own], targets[own], len(pixels)) for _ in range(3)]
mx.savez(f"{sys.argv[1]}/{ranks.rank}.npz", losses=mx.array(losses), **trainer.state())
"""
# Rank 1 dies in the second epoch.
DYING = """
import os, signal, sys
from ondevice.tasks.train import fit
from ondevice.cli import run

original = fit.Fit._step

def step(self, *args):
    if self.trainer.done == 4 and os.environ["MLX_RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args)

fit.Fit._step = step
sys.exit(run(sys.argv[1:]))
"""
OPTIONS = "--model shvit_nano.cifar10 --size 32 --method full --epochs 3 --batch-size 16"


def ranks(folder, *args):
    """Two of one command."""
    return run_ranks([folder] * 2, [args] * 2)


def test_two_halves_of_a_batch_give_the_step_of_the_whole(tmp_path):
    whole = Trainer(tiny(), Settings(batch_size=16), steps=9)
    losses = [whole.step(*batch(16)) for _ in range(3)]
    status, said = ranks(tmp_path, "-c", STEPS, tmp_path)
    assert status == [0, 0], said
    found = [mx.load(str(tmp_path / f"{rank}.npz")) for rank in range(2)]
    np.testing.assert_allclose(found[0]["losses"], losses, rtol=1e-5)
    wanted = whole.state()
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[0][key], found[1][key], err_msg=key)
        np.testing.assert_allclose(found[0][key], array, rtol=1e-3, atol=2e-5, err_msg=key)


def test_shares_of_ranks_are_the_batches_of_one(tmp_path):
    spec = ondevice.create_model("shvit_nano").info.preprocess
    folder = photos.write(tmp_path, 5)
    samples = read_dataset(folder).splits["train"]
    augment = Augment()
    one = Loader(samples, spec, batch_size=4, augment=augment)
    two = [
        Loader(samples, spec, batch_size=2, augment=augment, rank=rank, ranks=2)
        for rank in range(2)
    ]
    assert len(one) == len(two[0]) == 3
    for whole, *parts in zip(*(loader.epoch(1) for loader in (one, *two)), strict=True):
        together = np.concatenate([part.positions for part in parts])
        assert {*whole.positions} == {*together}


def test_two_ranks_train_and_one_that_dies_is_missed(tmp_path):
    """With an image that only its reader finds damaged."""
    folder = photos.write(tmp_path / "photos", 21)
    with (folder / "red" / "05.png").open("r+b") as file:
        file.truncate(300)
    args = ["train", folder, *OPTIONS.split(), "--out"]
    status, said = ranks(tmp_path, "-m", "ondevice", *args, tmp_path / "whole")
    assert status == [3, 0], said
    assert said[0][0].startswith("saved")
    assert said[1] == ("", "")
    assert said[0][1].count("red/05.png is damaged") == 1
    status, said = ranks(tmp_path, "-c", DYING, *args, tmp_path / "out")
    assert status == [2, -signal.SIGKILL]
    assert "rank 0 lost another one" in said[0][1]
    assert "--resume goes on from the last epoch" in said[0][1]
    assert state_path(tmp_path / "out").exists()
    status, said = ranks(tmp_path, "-m", "ondevice", *args, tmp_path / "out", "--resume")
    assert status == [3, 0], said
    whole, resumed = arrays(tmp_path / "whole"), arrays(tmp_path / "out")
    for key, array in whole.items():
        np.testing.assert_array_equal(resumed[key], array, err_msg=key)


def test_a_batch_that_ranks_cannot_share(tmp_path):
    class Three:
        def size(self):
            return 3

        def rank(self):
            return 0

    folder = photos.write(tmp_path / "photos", 4)
    with pytest.raises(ConfigError, match="batch_size is 16, expected a multiple of 3 ranks"):
        train(folder, tmp_path / "out", **QUICK, group=Three())
    with pytest.raises(ConfigError, match="a group goes with --method full or adapter"):
        train(
            folder,
            tmp_path / "out",
            **QUICK | {"method": "knn", "batch_size": 3},
            group=Three(),
        )
