"""An image resized in any spelling is one resize, or two products, with MLX's numbers."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from ...support.lowered import assert_lowered, ops

X = mx.array(np.random.default_rng(2).normal(size=(2, 6, 8, 9)).astype(np.float32))


def taps(n: int, out: int) -> tuple[mx.array, mx.array]:
    """Two pixels for each and their weights, centers of the corners on each other."""
    at = mx.arange(out) * ((n - 1) / (out - 1))
    low = mx.floor(at)
    index = mx.minimum(mx.stack([low, low + 1], axis=1), n - 1).astype(mx.int32)
    return index, mx.stack([1 - (at - low), at - low], axis=1)


def along(x: mx.array, axis: int, out: int) -> mx.array:
    """As depth models resize: one axis after the other, by two takes."""
    index, weight = taps(x.shape[axis], out)
    shape = [1] * x.ndim
    shape[axis] = out
    low, high = (mx.take(x, index[:, i], axis=axis) for i in (0, 1))
    return low * weight[:, 0].reshape(shape) + high * weight[:, 1].reshape(shape)


def summed(x: mx.array, out: int) -> mx.array:
    """A gather of all taps of a row, weighed and summed."""
    B, H, W, C = x.shape
    index, weight = taps(H, out)
    rows = mx.take(x.reshape(B, H, W * C), index.reshape(-1), axis=1)
    rows = rows.reshape(B, out, 2, W * C)
    return (rows * weight[None, :, :, None]).sum(axis=2).reshape(B, out, W, C)


def corners(x: mx.array, h: int, w: int) -> mx.array:
    """Four corners of each, by pairs of indices."""
    (rows, up), (columns, left) = taps(x.shape[1], h), taps(x.shape[2], w)
    up, left = up[:, None, :, None], left[None, :, :, None]
    return sum(
        x[:, rows[:, i, None], columns[None, :, j]] * up[:, :, i] * left[:, :, j]
        for i in (0, 1)
        for j in (0, 1)
    )


def upsampled(scale, mode: str, aligned: bool = False):
    return lambda x: nn.Upsample(scale, mode, aligned)(x)


ONE = {  # spellings of what Core ML has an op for, and which
    "linear": upsampled(2.0, "linear"),
    "linear, aligned": upsampled(2.0, "linear", True),
    "linear, by 1.5 and 3": upsampled((1.5, 3.0), "linear"),
    "linear, half as large": upsampled((0.5, 0.75), "linear"),
    "nearest": upsampled(2.0, "nearest"),
    "nearest by indices": lambda x: x[:, mx.arange(12) // 2][:, :, mx.arange(16) // 2],
    "two takes an axis": lambda x: along(along(x, 1, 11), 2, 10),
    "one axis": lambda x: along(x, 2, 10),
    "channels first": lambda x: along(along(x, 2, 11), 3, 10),
    "a gather of all taps": lambda x: summed(x, 13),
    "corners": lambda x: corners(x, 11, 9),
    "no batch": lambda x: along(along(x[0], 0, 11), 1, 10),
    "a sequence": lambda x: along(x.reshape(2, 48, 9), 1, 50),
}
TWO = {
    "cubic": upsampled(2.0, "cubic"),
    "cubic, aligned": upsampled(2.0, "cubic", True),
    "a scale that does not fit the size": upsampled(1.3, "linear"),
}
OTHER = {
    "nearest by 1.5": upsampled(1.5, "nearest"),
    "nearest by 1.3 and 2": upsampled((1.3, 2.0), "nearest"),
    "weighed channels": lambda x: along(x, 1, 9) * mx.arange(9),
    "weighed pixels": lambda x: along(x, 1, 9) * mx.arange(72).reshape(9, 8, 1),
    "part of it twice": lambda x: along(x, 1, 9) + along(x, 1, 9)[:, ::-1],
}


@pytest.mark.parametrize("name", ONE)
def test_a_resize_is_one_operation(name):
    assert_lowered(ONE[name], X)
    found = ops(ONE[name], X)
    assert found["Resize"] == 1
    assert found.keys() <= {"Resize", "Transpose", "Reshape", "Slice"}


@pytest.fixture
def uncompiled():
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", TWO)
def test_other_weights_are_two_products(name):
    assert_lowered(TWO[name], X)
    found = ops(TWO[name], X)
    assert found["Matmul"] == 2
    assert found.keys() <= {"Matmul", "Transpose"}


@pytest.mark.parametrize("name", OTHER)
def test_what_is_no_resize_has_the_same_numbers(name):
    assert_lowered(OTHER[name], X)
