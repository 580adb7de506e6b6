"""The time that passes take grows with a graph's length, and half precision's with a run's."""

from __future__ import annotations

import time

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from converters.graph import evaluators
from converters.graph.passes import PASSES, channels_first, run_passes
from converters.graph.trace import trace
from ondevice.cpu import blas


class Residual(nn.Module):
    """Tokens of a map, which the layout pass follows to the first layer that they meet."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)
        self.layers = [nn.Conv1d(4, 4, 3, padding=1) for _ in range(depth)]

    def __call__(self, x):
        x = self.stem(x).reshape(1, -1, 4)
        for layer in self.layers:
            x = x + nn.gelu(layer(x))
        return x


def seconds(depth: int) -> float:
    module = Residual(depth).eval()
    mx.eval(module.parameters())
    graph = trace(module, mx.zeros((1, 4, 2, 4)))
    start = time.process_time()
    channels_first(run_passes(graph, PASSES))
    return time.process_time() - start


def test_passes_take_as_much_longer_as_a_residual_net_is_deeper():
    seconds(50)  # patterns are traced once
    assert seconds(800) < 16 * 3 * max(seconds(50), 0.01)  # the order of a squared is 256


def test_products_are_numpys_where_mlx_has_a_slow_one(monkeypatch):
    a, b = mx.random.normal((3, 5, 8)), mx.random.normal((8, 4))
    wanted = np.array(a @ b)
    monkeypatch.setattr(blas, "is_slow", lambda: True)
    assert np.allclose(np.array(evaluators.product(a, b)), wanted, atol=1e-5)


def test_products_of_numpy_have_the_gradient_of_mlxs(monkeypatch):
    a, b = mx.random.normal((3, 5, 8)), mx.random.normal((8, 4))
    gradients = mx.grad(lambda a, b: evaluators.product(a, b).square().sum(), (0, 1))
    wanted = gradients(a, b)
    monkeypatch.setattr(blas, "is_slow", lambda: True)
    for found, right in zip(gradients(a, b), wanted, strict=True):
        assert np.allclose(np.array(found), np.array(right), atol=1e-4)
