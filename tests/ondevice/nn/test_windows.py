"""Layers that work on windows of a map."""

from __future__ import annotations

import mlx.core as mx
import pytest

from ondevice.nn.transformer import SelfAttention
from ondevice.nn.windows import WindowAttention, Windowed


@pytest.mark.parametrize("height", [8, 10, 3])
def test_a_window_sees_itself_and_what_pads_it(height):
    layer = WindowAttention(16, 2, 4)
    whole = SelfAttention(16, 2)
    whole.update(layer.parameters())
    x = mx.random.normal((2, height, 6, 16), key=mx.random.key(0))
    found, as_tokens = layer(x), Windowed(whole, 4)(x)
    padded = mx.pad(x, [(0, 0), (0, -height % 4), (0, 2), (0, 0)])
    assert found.shape == x.shape
    for y in range(0, height, 4):
        for column in (0, 4):
            window = whole(padded[:, y : y + 4, column : column + 4].flatten(1, 2))
            window = window.reshape(2, 4, 4, 16)[:, : height - y, : 6 - column]
            for result in (found, as_tokens):
                given = result[:, y : y + 4, column : column + 4]
                assert mx.allclose(given, window, atol=1e-5)
