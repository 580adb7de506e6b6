"""Quantized weights in the MLX runtime."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model
from ondevice.errors import ConfigError
from ondevice.nn.quantize import QuantizedPointwise, coverage, quantize

# Relative errors. A step of 8 bits is 1/255 of a group's range, which is three to four spreads:
# it errs by 1/255 * 3.5 / sqrt(12) = 0.4 %, and a step of 4 bits by 17 times that, 7 %.
OF_A_LAYER = 0.006  # 0.0041 measured
OF_A_MODEL = {8: 0.015, 4: 0.22}  # 0.0102 and 0.178: some 30 layers, half of them residual


def relative(a, b):
    return float(mx.linalg.norm(a - b) / mx.linalg.norm(b))


@pytest.mark.parametrize(("width", "out"), [(34, 66), (64, 10), (3, 7), (161, 5)])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_a_linear_layer_of_any_width_gives_its_numbers(width, out, group_size):
    mx.random.seed(0)
    layer = nn.Linear(width, out)
    x = mx.random.normal((2, 5, width))
    assert relative(QuantizedPointwise(layer, 8, group_size)(x), layer(x)) < OF_A_LAYER


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_1x1_convolution_gives_its_numbers(bias, stride):
    mx.random.seed(0)
    conv = nn.Conv2d(20, 36, 1, stride, bias=bias)
    x = mx.random.normal((2, 7, 6, 20))
    ours = QuantizedPointwise(conv, 8, 32)(x)
    assert ours.shape == conv(x).shape
    assert relative(ours, conv(x)) < OF_A_LAYER


def test_the_padding_adds_nothing():
    """The packed weight, unpacked, times the bare input is what the layer gives."""
    mx.random.seed(0)
    layer = QuantizedPointwise(nn.Linear(34, 8, bias=False), 4, 32)
    x = mx.random.normal((3, 34))
    plain = mx.dequantize(layer.weight, layer.scales, layer.biases, group_size=32, bits=4)
    np.testing.assert_allclose(layer(x), x @ plain[:, :34].T, atol=1e-6)  # 3e-7


def test_eight_bits_keep_the_class_and_four_shrink_the_model():
    model = create_model("shvit_nano.cifar10", pretrained=True)
    x = mx.random.normal((4, 96, 96, 3), key=mx.random.key(0))
    wanted = model(x)
    small = {bits: quantize(model, bits) for bits in OF_A_MODEL}
    for bits, limit in OF_A_MODEL.items():
        assert limit / 3 < relative(small[bits](x), wanted) < limit
    assert mx.array_equal(small[8](x).argmax(-1), wanted.argmax(-1))
    # 96 % of the weights have 9 or 5 bits, with their groups' scales, instead of 32, and rows
    # are padded to whole groups
    assert coverage(small[8]).bytes < 0.36 * 4 * 1_179_732
    assert coverage(small[4]).bytes < 0.22 * 4 * 1_179_732


def test_coverage_counts_every_weight_once():
    model = create_model("shvit_nano.cifar10", pretrained=True)
    small = quantize(model, 4)
    found, arrays = coverage(small), dict(tree_flatten(small.parameters()))
    assert 0.96 < found.share < 0.97
    assert found.total == 1_179_732
    kept = [arrays[path].shape for path in found.kept]  # all of them have larger kernels
    assert len(kept) == 18
    assert {shape[1:3] for shape in kept} == {(3, 3)}
    assert "of 1179732 weights quantized" in str(found)


def test_the_model_itself_is_not_changed():
    model = create_model("shvit_nano")
    before = {k: v.shape for k, v in tree_flatten(model.parameters())}
    quantize(model)
    assert {k: v.shape for k, v in tree_flatten(model.parameters())} == before


@pytest.mark.parametrize("options", [{"bits": 5}, {"bits": 16}, {"group_size": 48}], ids=str)
def test_what_mlx_cannot_hold_is_refused(options):
    with pytest.raises(
        ConfigError, match="MLX has 2, 3, 4, 6, 8 bits in groups of 32, 64, 128"
    ):
        quantize(create_model("shvit_nano"), **options)
