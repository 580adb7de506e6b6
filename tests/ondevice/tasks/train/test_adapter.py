"""Method adapter: the base stays as it is, whatever is learned beside it."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import ondevice
from ondevice.errors import ConfigError
from ondevice.tasks.train.run import train

from . import photos
from .test_train import HEAD, NANO, QUICK, interrupted, same

ADAPTER = {**QUICK, "method": "adapter", "lr": 1e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("photos"), 20)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapter") / "out"
    return out, train(folder, out, **{**ADAPTER, "epochs": 5})


def test_the_base_stays_and_adapters_learn(trained):
    out, model = trained
    saved = ondevice.load(out)
    assert saved.info.adapter == 8
    assert saved.info.metrics["method"] == "adapter"
    assert saved.info.metrics["val_top1"] >= 90
    base = dict(tree_flatten(ondevice.create_model(NANO, pretrained=True).parameters()))
    found = dict(tree_flatten(saved.parameters()))
    for path, array in base.items():
        if not path.startswith("head."):
            np.testing.assert_array_equal(found[path], array, err_msg=path)
    ups = [v for k, v in found.items() if k.endswith("adapter.up.weight")]
    assert len(ups) == 12
    assert all(mx.abs(up).max() > 0 for up in ups)
    x = mx.random.normal((1, 32, 32, 3))
    np.testing.assert_allclose(model(x), saved(x), rtol=1e-4, atol=1e-5)


def test_an_interrupted_one_goes_on_to_the_same_bits(folder, tmp_path):
    train(folder, tmp_path / "whole", **ADAPTER)
    interrupted(folder, tmp_path / "out", **ADAPTER)
    train(folder, tmp_path / "out", **ADAPTER, resume=True)
    assert same(tmp_path / "out", tmp_path / "whole")


def test_what_was_trained_further_keeps_its_adapters(folder, trained, tmp_path):
    out, _ = trained
    steps = ADAPTER | {"lr": 1e-9, "epochs": 1}
    for method, options in (("adapter", steps), ("full", steps), ("probe", HEAD)):
        given = options | {"model": str(out), "method": method}
        model = train(folder, tmp_path / method, **given)
        assert model.info.adapter == 8
        assert model.info.metrics["val_top1"] >= 90


REFUSED = {
    "rank": ({"adapter": -1}, "adapter=-1"),
    "full": ({"method": "full", "adapter": 4}, "adapter=4 goes with --method adapter"),
    "random": ({"pretrained": False}, "not for random ones"),
    "norms": ({"frozen_norms": False}, "impossible settings: frozen_norms=False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(folder, tmp_path, case):
    options, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        train(folder, tmp_path / "out", **ADAPTER | options)
    assert not list(tmp_path.iterdir())


def test_another_rank_than_it_has(folder, trained, tmp_path):
    with pytest.raises(ConfigError, match="has adapters of rank 8, not 4"):
        train(folder, tmp_path / "out", **ADAPTER | {"model": str(trained[0]), "adapter": 4})
