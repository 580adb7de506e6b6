"""The fast CPU forms beside MLX's own operations, and out of sight of the exporter."""

from __future__ import annotations

import math
import re
import sys
from io import StringIO
from itertools import product

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters.graph.record import trace_function
from converters.graph.trace import trace
from ondevice import create_model, fuse
from ondevice.cpu import kernels, threads

from ...support.machine import tuned_blas

EPS = 2.0**-23  # float32's
X = mx.random.normal((4, 24, 20, 8), key=mx.random.key(1))

fast_here = pytest.mark.skipif(
    not kernels.is_fast(mx.zeros(1)), reason="this machine runs MLX's own operations"
)

# kernel, stride, padding, input channels, output channels, groups
CONVOLUTIONS = [
    *product((3, 5, 7), (1, 2), (0, 2, 3), (8,), (8, 24), (8,)),  # depthwise, multiplied too
    *product((1, 2, 3), (1, 2, 3), (0, 1), (8,), (5,), (1,)),
    (3, 2, 1, 3, 8, 1),  # an image's channels
    (3, 1, 1, 8, 8, 2),  # groups of several channels: MLX's own
]


def float64_convolution(x, weight, stride, padding, groups):
    """Sum of products, place by place, in float64."""
    x = np.pad(np.asarray(x, np.float64), [(0, 0), *[(padding, padding)] * 2, (0, 0)])
    weight = np.asarray(weight, np.float64)
    out, kh, kw, depth = weight.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]  # (B, H, W, C, kh, kw)
    split = windows.reshape(*windows.shape[:3], groups, depth, kh, kw)
    split_weight = weight.reshape(groups, out // groups, kh, kw, depth)
    y = np.einsum("bhwgdij,goijd->bhwgo", split, split_weight)
    return y.reshape(*y.shape[:3], out)


@pytest.mark.parametrize("size", [(24, 20), (9, 7), (7, 7)], ids=str)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_a_convolution_is_that_of_float64(case, size):
    kernel, stride, padding, in_chs, out_chs, groups = case
    x = X[:, : size[0], : size[1], :in_chs]
    weight = mx.random.normal((out_chs, kernel, kernel, in_chs // groups), key=mx.random.key(2))
    y = kernels.conv2d(x, weight, (stride, stride), (padding, padding), 1, groups)
    wanted = float64_convolution(x, weight, stride, padding, groups)
    terms = kernel * kernel * in_chs // groups
    assert y.shape == wanted.shape
    # Every step rounds by half an EPS of a partial sum, of which none comes near 40.
    assert np.abs(np.array(y) - wanted).max() < terms * EPS / 2 * 40


def test_a_dilated_convolution_is_mlxs_own():
    weight = mx.random.normal((8, 3, 3, 1))
    y = kernels.conv2d(X, weight, (1, 1), (2, 2), 2, 8)
    assert mx.array_equal(y, mx.conv2d(X, weight, 1, 2, 2, 8))


def test_gelu_is_as_exact_as_float32_is():
    x = np.linspace(-20, 20, 400_001, dtype=np.float32)
    wanted = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(float)])
    error = np.abs(np.array(kernels.gelu(mx.array(x))) - wanted)
    with kernels.plain():
        own = np.abs(np.array(kernels.gelu(mx.array(x))) - wanted)
    assert error.max() <= own.max()  # 3e-7 beside 4.5e-7
    assert (error / np.maximum(np.abs(x), 1e-30)).max() < 8 * EPS  # the power of 8 counts it


@pytest.mark.parametrize("shape", [(3, 7, 5, 3), (96, 96, 3), (1, 1, 3)], ids=str)
def test_normalized_images_have_the_numbers_of_mlx(shape):
    x = mx.random.uniform(shape=shape, key=mx.random.key(6))
    mean, std = mx.array([0.4914, 0.4822, 0.4465]), mx.array([0.247, 0.2435, 0.2616])
    assert mx.array_equal(kernels.normalize(x, mean, std), (x - mean) / std)


@fast_here
def test_the_gelu_of_a_large_map_errs_by_little_more_than_a_rounding():
    x = np.random.default_rng(0).standard_normal((1, 128, 128, 2), dtype=np.float32)
    wanted = np.vectorize(lambda v: v * 0.5 * math.erfc(-v / math.sqrt(2)))(x.astype(float))
    found = np.array(kernels.gelu(mx.array(x)), np.float64)
    assert rms(found - wanted) < 1.4 * rms(wanted.astype(np.float32) - wanted)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e-30, 30.0, 1e30, -30.0, -1e30])
def test_gelu_at_the_ends_is_zero_or_the_number_itself(value, large, monkeypatch):
    monkeypatch.setattr(kernels, "is_large", lambda x, positions=0: large)
    wanted = value if value > 1 else value / 2 if value >= 0 else 0
    found = kernels.gelu(mx.array([value])).item()
    assert found == pytest.approx(wanted, rel=4e-7, abs=1e-25)


def rms(x):
    return np.sqrt(np.square(x).mean())


@fast_here
@tuned_blas
@pytest.mark.parametrize(
    ("side", "kernel", "stride", "in_chs", "groups", "gain"),
    [(64, 1, 1, 768, 1, 1.2), (128, 7, 1, 8, 8, 1.3), (128, 7, 2, 8, 8, 1.3)],
)
def test_convolutions_of_large_maps_err_less(
    side, kernel, stride, in_chs, groups, gain, monkeypatch
):
    """A long product by 1.7 and more with kernels of AVX, with those of SSE by 1.3."""
    x = mx.random.normal((1, side, side, in_chs), key=mx.random.key(4))
    weight = mx.random.normal((16, kernel, kernel, in_chs // groups), key=mx.random.key(5))
    sizes = (stride, stride), (kernel // 2, kernel // 2), 1, groups
    wanted = float64_convolution(x, weight, stride, kernel // 2, groups)
    large = rms(np.array(kernels.conv2d(x, weight, *sizes)) - wanted)
    monkeypatch.setattr(kernels, "is_large", lambda x, positions=0: False)
    small = rms(np.array(kernels.conv2d(x, weight, *sizes)) - wanted)
    assert large * gain < small < 1e-6 * wanted.std()


@tuned_blas
@pytest.mark.parametrize("spread", [1, 30, 1e4])
@pytest.mark.parametrize("shape", [(512, 96), (64, 1024), (9, 4099)], ids=str)
def test_softmax_is_as_exact_as_float32_is(shape, spread):
    x = mx.random.normal(shape, key=mx.random.key(3)) * spread
    assert x.size >= kernels.MIN_ELEMENTS
    x64 = np.array(x, np.float64)
    wanted = np.exp(x64 - x64.max(-1, keepdims=True))
    wanted /= wanted.sum(-1, keepdims=True)
    y = np.array(kernels.softmax(x), np.float64)
    # x * log2(e) is rounded before its fraction is taken: an EPS of up to 126.
    assert np.abs(y - wanted).max() < 4 * EPS
    kept = wanted > 1e-30
    assert (np.abs(y - wanted)[kept] / wanted[kept]).max() < 126 * EPS
    assert np.abs(y.sum(-1) - 1).max() < 8 * EPS


def test_softmax_of_forbidden_positions_is_zero_there():
    x = mx.where(mx.arange(128) < 64, 0.0, -1e9) + mx.zeros((256, 128))
    y = kernels.softmax(x)
    assert mx.allclose(y[:, :64], mx.array(1 / 64), rtol=1e-6)
    assert y[:, 64:].max().item() < 1e-37


HEADS = [(2, 30, 70, 8), (1, 3, 400, 8), (1, 2, 640, 16)]  # several a chunk, and chunks of one


def queries(shape):
    keys = mx.random.split(mx.random.key(7), 3)
    return [mx.random.normal(shape, key=key) for key in keys]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", HEADS, ids=str)
def test_attention_is_as_exact_as_float32_is(shape, count):
    q, k, v = (np.array(x, np.float64) for x in queries(shape))
    scores = q @ k.swapaxes(2, 3)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    wanted = shares / shares.sum(-1, keepdims=True) @ v
    with threads._sharing_chunks(count):
        found = np.array(kernels.attention(*queries(shape)))
    assert found.shape == shape
    assert np.abs(found - wanted).max() < 64 * EPS  # scores up to 50 are rounded


def test_gradients_of_attention_are_mlxs_own():
    def gradients():
        return mx.grad(lambda *x: mx.sin(kernels.attention(*x)).sum(), (0, 1, 2))(
            *queries(HEADS[0])
        )

    with kernels.plain():
        own = gradients()
    assert all(
        mx.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(gradients(), own, strict=True)
    )


@pytest.mark.parametrize("name", ["gelu", "softmax", "relu"])
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_is_mlxs_own(name, dtype):
    x = mx.random.normal((128, 128)).astype(dtype)
    y = getattr(kernels, name)(x)
    assert y.dtype == dtype
    with kernels.plain():
        assert mx.array_equal(y, getattr(kernels, name)(x))


@pytest.mark.parametrize("name", ["gelu", "softmax", "relu"])
def test_gradients_are_mlxs_own(name):
    x = mx.random.normal((256, 128)) * 3
    x[0, :4] = mx.array([0.0, 1e4, -1e4, 30.0])
    weights = mx.random.normal(x.shape)

    def gradient():
        return mx.grad(lambda x: (getattr(kernels, name)(x) * weights).sum())(x)

    with kernels.plain():
        own = gradient()
    assert mx.isfinite(own).all()
    assert mx.allclose(gradient(), own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [(7, 1, 3, 8, 8, 8), (7, 2, 3, 8, 16, 8), (3, 2, 1, 8, 5, 1)])
def test_gradients_of_convolutions_are_mlxs_own(case):
    kernel, stride, padding, in_chs, out_chs, groups = case
    weight = mx.random.normal((out_chs, kernel, kernel, in_chs // groups))

    def loss(x, weight):
        y = kernels.conv2d(x, weight, (stride, stride), (padding, padding), 1, groups)
        return (y * mx.sin(mx.arange(y.size).reshape(y.shape))).sum()

    def gradients():
        return mx.grad(loss, argnums=(0, 1))(X, weight)

    with kernels.plain():
        own = gradients()
    assert all(
        mx.allclose(a, b, rtol=1e-5, atol=1e-4) for a, b in zip(gradients(), own, strict=True)
    )


def primitives(fn, *xs):
    """The names of what ``fn`` asks MLX for; what is compiled has several in one name."""
    out = StringIO()
    mx.export_to_dot(out, fn(*xs))
    return " ".join(re.findall(r'label ="(\w+)"', out.getvalue()))


WEIGHT = mx.random.normal((8, 7, 7, 1), key=mx.random.key(8))
LONG = mx.random.normal((8, kernels.MIN_ELEMENTS // 8), key=mx.random.key(9))


@fast_here
@pytest.mark.parametrize(
    ("form", "inputs", "own"),
    [
        (kernels.gelu, [X], "Erf"),
        (lambda x: kernels.conv2d(x, WEIGHT, (1, 1), (3, 3), 1, 8), [X], "Convolution"),
        (kernels.softmax, [LONG], "Softmax"),
        (kernels.attention, queries(HEADS[0]), "Softmax"),
    ],
    ids=["gelu", "conv2d", "softmax", "attention"],
)
def test_the_fast_forms_are_used_here(form, inputs, own):
    """Else the tests above compare MLX with itself."""
    mx.eval(inputs, WEIGHT)
    assert own not in primitives(form, *inputs)
    with kernels.plain():
        assert own in primitives(form, *inputs)


def test_tracing_sees_mlxs_own_operations():
    def ops(fn):
        return [node.op for node in trace_function(fn, X).nodes]

    weight = mx.zeros((8, 7, 7, 1))
    mx.eval(weight)
    assert ops(kernels.gelu) == ops(nn.gelu)
    assert ops(kernels.relu) == ops(nn.relu)
    assert ops(kernels.softmax) == ops(lambda x: mx.softmax(x, axis=-1))
    assert ops(lambda x: kernels.attention(x, x, x)) == ops(
        lambda x: mx.softmax(x @ x.swapaxes(2, 3), axis=-1) @ x
    )
    assert ops(lambda x: kernels.conv2d(x, weight, (1, 1), (3, 3), 1, 8)) == ["Convolution"]


@pytest.mark.parametrize("name", ["shvit_nano", "efficientvit_m0", "fastvit_t8"])
def test_a_model_is_traced_as_it_would_be_on_a_mac(name, monkeypatch):
    model = fuse(create_model(name))
    x = mx.zeros((1, 128, 128, 3))
    here = trace(model, x)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not kernels.is_fast(x)
    there = trace(model, x)
    assert [(n.op, n.args) for n in here.nodes] == [(n.op, n.args) for n in there.nodes]


def test_plain_ends_with_its_block():
    before = kernels.is_fast(X)
    with kernels.plain():
        assert not kernels.is_fast(X)
    assert kernels.is_fast(X) == before
    with pytest.raises(ZeroDivisionError), kernels.plain():
        1 / 0  # noqa: B018
    assert kernels.is_fast(X) == before


@pytest.mark.parametrize("length", [1, 128, 1000])
def test_sums_of_products_are_near_those_of_float64(length):
    a, b = (mx.random.normal((2, 3, length, n), key=mx.random.key(n)) + 1 for n in (4, 5))
    exact = np.array(a, np.float64).swapaxes(2, 3) @ np.array(b, np.float64)
    found = np.array(kernels.sum_of_products(a, b))
    assert np.abs(found - exact).max() < 4e-7 * np.abs(exact).max()
    with kernels.plain():
        assert np.allclose(kernels.sum_of_products(a, b), exact, rtol=1e-5, atol=1e-4)
