"""Adapters beside every MLP of our families, whose other parameters keep their paths."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import ondevice
from ondevice.errors import ConfigError
from ondevice.nn.adapter import add_adapters, freeze_base

CASES = {"shvit_nano": 12, "efficientvit_m0": 16, "fastvit_t8": 10, "fastvit_sa12": 12}


def size(model):
    return sum(v.size for _, v in tree_flatten(model.trainable_parameters()))


@pytest.mark.parametrize("name", CASES)
def test_adapters_begin_as_nothing_and_change_the_model(name):
    model = ondevice.create_model(name, num_classes=3)
    x = mx.random.normal((1, 64, 64, 3))
    before, paths = np.array(model(x)), dict(tree_flatten(model.parameters())).keys()
    add_adapters(model, 4)
    added = dict(tree_flatten(model.parameters())).keys() - paths
    assert len({path.split(".adapter.")[0] for path in added}) == CASES[name]
    assert all(".adapter." in path for path in added)
    assert paths <= dict(tree_flatten(model.parameters())).keys()
    np.testing.assert_array_equal(model(x), before)
    for _, layer in model.named_modules():
        if "adapter" in layer:
            layer.adapter.up.weight = mx.random.normal(layer.adapter.up.weight.shape)
    changed = np.array(model(x))
    assert np.abs(changed - before).max() > 1e-2 * np.abs(before).max()
    np.testing.assert_allclose(ondevice.fuse(model)(x), changed, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_a_few_per_cent_learn(name):
    model = ondevice.create_model(name, num_classes=3).train()
    everything = size(model)
    add_adapters(model, 8)
    freeze_base(model)
    learned = dict(tree_flatten(model.trainable_parameters()))
    assert all(".adapter." in path or path.startswith("head.") for path in learned)
    assert not [path for path in learned if "running" in path]
    assert 0.003 < size(model) / everything < 0.06


def test_a_model_without_mlps_has_no_place_for_them():
    with pytest.raises(ConfigError, match="Linear has no residual MLP"):
        add_adapters(nn.Linear(2, 2), 4)
