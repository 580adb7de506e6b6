"""Truth values and integers, of which packages know fewer kinds than MLX: through each back
end's export, and its package's own runtime, they are what they are in MLX."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from converters import export_module, load_package
from converters.backend import BACKENDS
from ondevice.errors import UnsupportedOpError

from ..support.lowered import as_module

mx.random.seed(0)
X = mx.random.normal((2, 5, 8))
SMALL = (mx.int8, mx.uint8, mx.int16, mx.uint16)


def small(x, dtype):
    """Numbers that leave eight and sixteen bits when they are added and multiplied."""
    size = 90 if dtype in (mx.int8, mx.uint8) else 20000
    return (x * size).astype(mx.int32).astype(dtype)


def with_floats(results):
    """As float32, which every package can give."""
    return [x.astype(mx.float32) for x in results]


TRUTHS = {
    "and, or": lambda a, b: [a & b, a | b, a ^ b, ~a],
    "sums and products": lambda a, b: [a + b, a * b],
    "extremes": lambda a, b: [mx.maximum(a, b), mx.minimum(a, b)],
    "comparisons": lambda a, b: [a == b, a != b, a < b, a <= b, a > b, a >= b],
    "with a constant": lambda a, b: [a != (mx.arange(8) > 4), a * mx.array([True, False] * 4)],
    "with numbers": lambda a, b: [a + 2, a * 0.5, a - b.astype(mx.int32), a == 1],
    "reductions": lambda a, b: [b.all(1), a.any(2), a.sum(1), a.max(axis=1), b.min(axis=1)],
    "means and products": lambda a, b: [a.mean(1), (a | b).prod(2)],
    "picked": lambda a, b: [mx.where(a, b, ~b), mx.where(a, 1, -1), mx.where(a, 0.5, b)],
    "moved": lambda a, b: [a[:, ::-1], mx.concatenate([a, b], 1), a.swapaxes(1, 2)],
    "taken": lambda a, b: [
        mx.take_along_axis(a, mx.array([[[3], [0]], [[1], [4]]]), axis=1),
    ],
    "padded": lambda a, b: [mx.pad(a, ((0, 0), (1, 2), (0, 1)), constant_values=True)],
    "running": lambda a, b: [mx.cumsum(a, axis=1)],
    "cast": lambda a, b: [a.astype(mx.uint8), a.astype(mx.int32).astype(mx.bool_)],
    "a mask's first": lambda a, b: [mx.argmax(a.astype(mx.int32), axis=2)],
}
INTEGERS = {
    "cast": lambda i: [i, i.astype(mx.float32).astype(mx.int32), i.astype(mx.bool_)],
    "added": lambda i: [i + 100, i + i, i - 100],
    "multiplied": lambda i: [i * i, i * 3],
    "compared": lambda i: [i > 5, i == i[:, ::-1], mx.where(i > 5, i, 2 * i)],
    "extremes": lambda i: [mx.maximum(i, 3), mx.clip(i, 2, 90), i.max(axis=1), i.min(axis=2)],
    "running": lambda i: [
        mx.cumsum(i, axis=2),
        mx.cumsum(i, axis=1, inclusive=False),
        i.sum(1),
    ],
    "divided": lambda i: [i // 7, i % 7],
    "of one": lambda i: [mx.abs(i), mx.square(i), mx.sign(i), i**3],
}


def results(fn, x, path):
    """Each output of the package at ``path``, and MLX's."""
    module = as_module(lambda x: with_floats(fn(x)))
    package = load_package(export_module(module, x, path, precision="float32"))
    found = package.predict(package.named([np.array(x)]))
    return list(zip(found.values(), map(np.array, module(x)), strict=True))


def assert_equal(fn, path, x=X):
    for ours, mlx in results(fn, x, path):
        assert mlx.any(), "a result of zeros proves nothing"
        np.testing.assert_allclose(ours, mlx, rtol=1e-6)


@pytest.mark.parametrize("suffix", BACKENDS)
@pytest.mark.parametrize("case", TRUTHS)
def test_truth_values_are_what_they_are_in_mlx(case, suffix, tmp_path):
    fn = TRUTHS[case]
    assert_equal(lambda x: fn(x > 0, x < 0.5), tmp_path / f"m{suffix}")


@pytest.mark.parametrize("suffix", BACKENDS)
@pytest.mark.parametrize("case", INTEGERS)
@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_small_integers_are_what_they_are_in_mlx(dtype, case, suffix, tmp_path):
    fn = INTEGERS[case]
    assert_equal(lambda x: fn(small(x, dtype)), tmp_path / f"m{suffix}")


@pytest.mark.parametrize("suffix", BACKENDS)
def test_all_that_is_lacking_is_said_at_once(suffix, tmp_path):
    def fn(x):
        i = x.astype(mx.uint32)
        return [mx.where(x > 0, mx.array(1 << 40), mx.array(0)), i - 2, -i]

    with pytest.raises(UnsupportedOpError) as caught:
        export_module(as_module(fn), X, tmp_path / f"m{suffix}")
    said = str(caught.value)
    assert "\n" not in said
    for part in ("an integer of 1099511627776 does not fit", "Subtract in ", "Negative in "):
        assert part in said
    assert not list(tmp_path.iterdir())
