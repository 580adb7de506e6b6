"""Attention in windows cut from one value turns that value once."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ...support.lowered import assert_lowered, ops

X = mx.random.normal((1, 24, 16), key=mx.random.key(1))


class Windowed(nn.Module):
    """As Qwen's vision tower: each window's heads by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)

    def __call__(self, x):
        q, k, v = (f(x).reshape(1, 24, 2, 8) for f in (self.q, self.k, self.v))
        parts = []
        for i in range(0, 24, 6):
            a, b, c = (y[:, i : i + 6].transpose(0, 2, 1, 3) for y in (q, k, v))
            y = mx.fast.scaled_dot_product_attention(a, b, c, scale=8**-0.5)
            parts.append(y.transpose(0, 2, 1, 3).reshape(1, 6, 16))
        return mx.concatenate(parts, axis=1)


def test_queries_keys_and_values_of_all_windows_are_turned_once():
    assert_lowered(Windowed(), X)
    assert ops(Windowed(), X)["Transpose"] <= 3 + 4  # and each window's result


def test_parts_that_are_turned_differently_stay():
    def fn(x):
        return x[:, :6].transpose(0, 2, 1) @ x[:, 6:12] + x[:, 12:18].transpose(2, 1, 0).sum()

    assert_lowered(fn, X)
