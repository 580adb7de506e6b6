"""Residual branches that training leaves out at random."""

import mlx.core as mx
import numpy as np

from ondevice import create_model
from ondevice.nn.drop_path import DropPath, set_drop_path
from ondevice.nn.layers import Residual


class Ten(Residual):
    def __init__(self):
        super().__init__(lambda x: mx.full(x.shape, 10.0))


def test_an_image_passes_by_a_branch_or_has_more_of_it():
    mx.random.seed(0)
    layer = Ten()
    layer.drop_rate = 0.5
    y = np.asarray(layer.train()(mx.zeros((400, 2, 3))))
    assert {0.0, 20.0} == set(y.ravel())
    assert (y == y[:, :1, :1]).all()  # all of an image or nothing
    assert 8.5 < y.mean() < 11.5
    np.testing.assert_array_equal(layer.eval()(mx.zeros((4, 2))), 10)


def test_rates_grow_with_depth():
    model = create_model("shvit_nano")
    set_drop_path(model, 0.2)
    rates = {k: m.drop_rate for k, m in model.named_modules() if isinstance(m, DropPath)}
    first, middle, last = (
        rates[f"stages.{i}.blocks.{j}.ffn"] for i, j in ((0, 0), (1, 2), (2, 2))
    )
    assert rates["stages.0.blocks.0.conv"] == 0
    assert 0 < first < rates["stages.1.downsample.0"] < middle < last == 0.2
