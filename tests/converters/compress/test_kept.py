"""Weights that MLX holds in a few bits come into packages in those bits."""

from __future__ import annotations

import logging

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export_module, load_package, verify
from converters.compress.forms import Affine
from tests.support.lowered import as_module

from .test_forms import unpacked

IDS = [mx.array([[3, 1, 4, 1, 5]]), mx.array([[9, 2, 6, 5, 3]])]


class Block(nn.Module):
    """An embedding, and two layers whose sum's second part has a factor a channel."""

    def __init__(self, bits=4, group=32, dtype=mx.float32, mode="affine"):
        super().__init__()
        self.embed = nn.Embedding(20, 256)
        self.up, self.down = nn.Linear(256, 512), nn.Linear(512, 256)
        self.gamma = mx.random.normal((256,))
        self.set_dtype(dtype)
        nn.quantize(self, group_size=group, bits=bits, mode=mode)

    def __call__(self, ids):
        x = self.embed(ids)
        return x + self.gamma * self.down(nn.gelu(self.up(x)))


def exported(net, tmp_path, **options):
    mx.eval(net.parameters())
    return export_module(net.eval(), IDS[0], tmp_path / "x.mlpackage", **options)


@pytest.mark.parametrize("precision", ["float16", "float32"])
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_bits_are_kept(bits, group, precision, tmp_path, caplog):
    mx.random.seed(bits)
    net = Block(bits, group)
    path = exported(net, tmp_path, target="iOS18", precision=precision)
    stored, held = load_package(path).weights, "uint4" if bits <= 4 else "uint8"
    for name in ("embed_weight", "up_weight", "down_weight"):
        assert stored[name].format == f"{held} per block of {group}", name
    report = verify(net, path, IDS)
    assert report.passed, report.failures
    assert not caplog.records


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("bits", [4, 8])
def test_scales_in_half_precision_have_a_zero_between_codes(bits, dtype, tmp_path):
    mx.random.seed(0)
    net = Block(bits, 64, dtype)
    path = exported(net, tmp_path, target="iOS18")
    assert load_package(path).weights["up_weight"].format == f"uint{bits} per block of 64"
    wide = Block(bits, 64)
    wide.update(net.parameters())
    wide.set_dtype(mx.float32)
    report = verify(wide, path, IDS)
    assert report.passed, report.failures


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
def test_what_a_target_cannot_hold_is_said(target, tmp_path, caplog):
    net = Block()
    package = load_package(exported(net, tmp_path, target=target))
    assert package.weights["up_weight"].format == "fp16"
    (said,) = (r.message for r in caplog.records if r.levelno == logging.WARNING)
    assert said == (
        "Block: quantized embed.weight, up.weight, down.weight are stored as floats: target "
        "iOS18 holds its bits"
    )


def test_small_floats_are_said(tmp_path, caplog):
    exported(Block(4, 32, mode="mxfp4"), tmp_path, target="iOS18")
    assert "no package holds MLX's small floats" in caplog.text


@pytest.mark.parametrize("turned", [True, False])
def test_a_quantized_product_keeps_its_bits(turned, tmp_path):
    mx.random.seed(0)
    weight, scales, biases = mx.quantize(mx.random.normal((64, 64)), group_size=32, bits=4)

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = weight

        def __call__(self, x):
            return mx.quantized_matmul(
                x, self.table, scales, biases, transpose=turned, group_size=32, bits=4
            )

    net, x = Product(), mx.random.normal((2, 64))
    path = export_module(net.eval(), x, tmp_path / "x.mlpackage", target="iOS18")
    assert load_package(path).weights["table"].format == "uint4 per block of 32"
    assert verify(net, path, [x]).passed


def test_a_recipe_decides_instead(tmp_path, caplog):
    path = exported(Block(), tmp_path, target="iOS18", recipe="int8")
    assert load_package(path).weights["up_weight"].format == "int8 per channel"
    assert not caplog.records


def test_negative_scales_and_zero_points_that_are_no_codes(tmp_path):
    """A group whose weights all lie far from zero has a zero point beyond the codes."""
    mx.random.seed(0)
    layer = nn.Linear(64, 32)
    layer.weight = mx.random.uniform(-1, -0.8, (32, 64))
    layer.weight[:16] *= -1
    layer = nn.QuantizedLinear.from_linear(layer, group_size=32, bits=4)
    net, x = as_module(layer), mx.random.normal((2, 64))
    path = export_module(net.eval(), x, tmp_path / "x.mlpackage", target="iOS18")
    (weight,) = (w for w in load_package(path).weights.values() if w.size == 64 * 32)
    assert weight.format == "uint4 per block of 32"
    assert verify(net, path, [x]).passed


def test_a_batch_norm_in_front_is_not_folded_into_the_bits(tmp_path):
    mx.random.seed(0)
    norm = nn.BatchNorm(64)
    norm.running_var = mx.random.uniform(0.5, 2, (64,))
    layer = nn.QuantizedLinear.from_linear(nn.Linear(64, 32), group_size=32, bits=4)
    net, x = nn.Sequential(norm, layer), mx.random.normal((2, 64))
    path = export_module(net.eval(), x, tmp_path / "x.mlpackage", target="iOS18")
    (weight,) = (w for w in load_package(path).weights.values() if w.size == 64 * 32)
    assert weight.format == "uint4 per block of 32"
    assert verify(net, path, [x]).passed


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_offset_between_codes_is_what_core_ml_unpacks(dtype):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (12, 64), dtype=np.uint8)
    scale = rng.uniform(0.01, 0.1, (12, 2)).astype(dtype)
    form = Affine(codes, scale, 4, rng.uniform(0, 30, (12, 2)).astype(dtype))
    np.testing.assert_array_equal(unpacked(form, "iOS18"), form.dense().astype(np.float32))
    assert form.stored_bits == 12 * 64 * 4 + 2 * 24 * 8 * np.dtype(dtype).itemsize
