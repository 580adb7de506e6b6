"""The odd network with numbers, and inputs like pictures."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from .odd import SHAPE, Odd


@pytest.fixture(scope="session")
def odd():
    mx.random.seed(0)
    model = Odd()
    for layer in (model.stem, model.depthwise, model.wide, model.grouped, model.up):
        layer.bias = mx.random.normal(layer.bias.shape) / 4
    model.head.weight = model.head.weight * 4
    mx.eval(model.parameters())
    return model.eval()


@pytest.fixture(scope="session")
def samples():
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 3, 24)[:, None, None] * np.linspace(0, 2, 24)[None, :, None]
    return [
        (np.sin(grid * rng.uniform(1, 4, 3)) + 0.3 * rng.standard_normal(SHAPE)).astype(
            np.float32
        )
        for _ in range(16)
    ]
