"""Gradients of every family in training form, by finite differences in float64."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from ondevice import create_model
from ondevice.cpu import kernels
from ondevice.nn.batch_norm import BatchNorm, freeze_statistics

SMALL = {
    "shvit_s1": {"embed_dim": (16, 24, 32), "depth": (1, 1, 1), "partial_dim": (8, 8, 8)},
    "efficientvit_m0": {
        "embed_dim": (16, 24, 32),
        "depth": (1, 1, 1),
        "num_heads": (2, 2, 2),
        "kernels": (3, 3),
        "img_size": 128,
    },
    "fastvit_sa12": {"embed_dim": (16, 32, 32, 32), "depth": (1, 1, 1, 1)},
    "fastvit_mci0": {
        "embed_dim": (16, 32, 32, 32),
        "depth": (1, 1, 1, 1),
        "attention": (False, False, False, True),
    },
    "mobileclip_b": {"embed_dim": 32, "depth": 2, "heads": 4, "img_size": 128},
}


def convolution(x, weight, stride=1, padding=0, dilation=1, groups=1):
    """MLX's, which has no float64, as products and sums of slices."""
    (sy, sx), (py, px) = ((n, n) if isinstance(n, int) else n for n in (stride, padding))
    assert dilation in (1, (1, 1))
    _out, kh, kw, _ = weight.shape
    x = mx.pad(x, [(0, 0), (py, py), (px, px), (0, 0)])
    H, W = (x.shape[1] - kh) // sy + 1, (x.shape[2] - kw) // sx + 1
    total = 0
    for i in range(kh):
        for j in range(kw):
            shifted = x[:, i : i + sy * H : sy, j : j + sx * W : sx][:, :H, :W]
            parts = zip(
                mx.split(shifted, groups, axis=-1),
                mx.split(weight[:, i, j], groups, axis=0),
                strict=True,
            )
            total = total + mx.concatenate([part @ w.T for part, w in parts], axis=-1)
    return total


def smooth_relu(x):
    """Without the kink, which a difference must not step over."""
    return (x + mx.sqrt(mx.square(x) + 0.01)) / 2


@pytest.mark.parametrize("name", SMALL)
def test_the_gradient_is_the_slope(name, monkeypatch):
    monkeypatch.setattr(mx, "conv2d", convolution)
    monkeypatch.setattr(kernels, "relu", smooth_relu)
    mx.random.seed(1)
    model = create_model(name, num_classes=5, **SMALL[name])
    model.set_dtype(mx.float64)
    model.train()
    x = mx.random.normal((4, 128, 128, 3)).astype(mx.float64)

    def loss(parameters):
        model.update(tree_unflatten(list(parameters.items())))
        return nn.losses.cross_entropy(model(x), mx.array([0, 1, 2, 3]), reduction="mean")

    def noise(array):
        return mx.random.normal(array.shape).astype(mx.float64)

    start = {k: v + 0.1 * noise(v) for k, v in tree_flatten(model.trainable_parameters())}
    gradient = mx.grad(loss)(start)
    for _ in range(3):
        direction = {k: noise(v) for k, v in start.items()}
        slope = sum((gradient[k] * direction[k]).sum() for k in start).item()
        # As large as MLX's exp and erf need, which are no more exact than float32.
        step = 1e-3 / (10 + abs(slope))
        points = [
            loss({k: v + n * step * direction[k] for k, v in start.items()}).item()
            for n in (-2, -1, 1, 2)
        ]
        assert slope == pytest.approx(np.dot(points, [1, -8, 8, -1]) / (12 * step), rel=2e-3)


CONVOLUTIONS = [  # map, kernel, stride, padding, groups: one for each form
    ((2, 17, 19, 3), (8, 3, 3, 3), 2, 1, 1),
    ((2, 9, 8, 16), (24, 1, 1, 16), 1, 0, 1),
    ((2, 9, 8, 16), (24, 3, 3, 16), 1, 1, 1),
    ((2, 16, 16, 8), (8, 3, 3, 1), 1, 1, 8),
    ((2, 9, 7, 8), (8, 3, 3, 1), 2, 1, 8),
    ((2, 8, 10, 8), (8, 3, 3, 1), 2, 1, 8),
    ((2, 11, 12, 5), (6, 3, 3, 5), 2, 0, 1),
    ((2, 12, 12, 3), (6, 4, 4, 3), 4, 0, 1),
    ((2, 13, 14, 3), (6, 2, 2, 3), 3, 0, 1),
    ((2, 9, 9, 1), (4, 3, 3, 1), 1, 1, 1),
    ((2, 9, 11, 4), (8, 5, 5, 1), 1, 2, 4),
    ((2, 9, 11, 4), (12, 3, 3, 1), 2, 1, 4),
    ((2, 16, 15, 4), (4, 7, 7, 1), 2, 3, 4),
    ((2, 4, 4, 6), (12, 1, 1, 1), 1, 0, 6),
    ((2, 12, 12, 4), (4, 5, 5, 1), 1, 0, 4),
    ((4, 8, 8, 8), (8, 7, 7, 1), 1, 3, 8),
    ((4, 24, 24, 8), (8, 7, 7, 1), 1, 3, 8),
    ((4, 24, 24, 8), (16, 7, 7, 1), 2, 3, 8),
]


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding", "groups"), CONVOLUTIONS)
def test_the_forms_for_cpus_have_the_gradients_of_mlx(shape, kernel, stride, padding, groups):
    x, weight = mx.random.normal(shape), mx.random.normal(kernel)

    def convolved(x, weight):
        return kernels.conv2d(x, weight, (stride, stride), (padding, padding), groups=groups)

    with kernels.plain():
        y = convolved(x, weight)
        cotangent = mx.random.normal(y.shape)
        _, wanted = mx.vjp(convolved, [x, weight], [cotangent])
        mx.eval(wanted)
    _, found = mx.vjp(convolved, [x, weight], [cotangent])
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(mx.abs(theirs).max()))


def test_views_of_other_arrays_are_convolved():
    """Whatever lies between their elements: MLX takes strided views of whole arrays only."""
    x, kernel = mx.random.normal((2, 12, 12, 8))[..., ::2], mx.random.normal((4, 5, 5, 1))
    found = kernels.conv2d(x, kernel, (1, 1), (0, 0), groups=4)
    with kernels.plain():
        wanted = kernels.conv2d(x, kernel, (1, 1), (0, 0), groups=4)
        mx.eval(wanted)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 33), (8, 300, 1000)])
@pytest.mark.parametrize("function", [kernels.gelu, kernels.relu, kernels.softmax])
def test_functions_for_cpus_have_the_gradients_of_mlx(function, shape):
    x, cotangent = mx.random.normal(shape), mx.random.normal(shape)
    with kernels.plain():
        _, (wanted,) = mx.vjp(function, [x], [cotangent])
        mx.eval(wanted)
    _, (found,) = mx.vjp(function, [x], [cotangent])
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-4)


def test_a_batch_norm_adds_up_what_float32_would_lose():
    x = 3 + mx.random.normal((8, 112, 112, 4))
    norm = BatchNorm(4).train()
    norm(x)
    exact = np.asarray(x).astype(np.float64).reshape(-1, 4)
    np.testing.assert_allclose(norm.running_mean, 0.1 * exact.mean(0), rtol=3e-7)
    variance = 0.9 + 0.1 * exact.var(0, ddof=1)
    np.testing.assert_allclose(norm.running_var, variance, rtol=3e-7)


def test_frozen_statistics_are_used_and_kept():
    model = nn.Sequential(BatchNorm(3), nn.Linear(3, 2))
    model.layers[0].running_mean = mx.array([1.0, 2.0, 3.0])
    x = mx.random.normal((4, 3))
    wanted = model.eval()(x)
    model.train()
    freeze_statistics(model)
    np.testing.assert_array_equal(model(x), wanted)
    np.testing.assert_array_equal(model.layers[0].running_mean, [1, 2, 3])
    assert model.training
