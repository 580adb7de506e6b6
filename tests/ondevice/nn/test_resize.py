"""Resizing maps: by a resize written point by point."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from ondevice.nn.resize import bicubic, bilinear


def naive(x, size, at, weights):
    """Each element of (H, W, C) as a sum of its neighbours, indices kept inside."""
    H, W, _ = x.shape
    out = np.zeros((*size, x.shape[2]))
    for i, j in np.ndindex(size):
        v, u = at(i, H, size[0]), at(j, W, size[1])
        for row, a in weights(v):
            for column, b in weights(u):
                out[i, j] += a * b * x[min(max(row, 0), H - 1), min(max(column, 0), W - 1)]
    return out


def edges(i, n, out):
    return (i + 0.5) * n / out - 0.5


def clipped(i, n, out):
    return min(max(edges(i, n, out), 0), n - 1)


def corners(i, n, out):
    return i * (n - 1) / (out - 1) if out > 1 else 0


def linear(at):
    low = int(np.floor(at))
    return (low, 1 - (at - low)), (low + 1, at - low)


def cubic(at):
    """Keys' kernel with a slope of -0.75, as PyTorch has it."""
    low = int(np.floor(at))

    def weight(d):
        d = abs(d)
        inner = 1.25 * d**3 - 2.25 * d**2 + 1
        return inner if d <= 1 else -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)

    return [(low + k, weight(at - low - k)) for k in (-1, 0, 1, 2)]


SIZES = [((5, 7), (11, 3)), ((4, 4), (8, 8)), ((6, 3), (3, 1)), ((2, 9), (2, 12))]


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize(("aligned", "at"), [(False, clipped), (True, corners)])
def test_bilinear(before, after, aligned, at):
    x = np.random.default_rng(0).normal(size=(2, *before, 3)).astype(np.float32)
    found = np.array(bilinear(mx.array(x), after, align_corners=aligned))
    for mine, given in zip(found, x, strict=True):
        assert np.abs(mine - naive(given, after, at, linear)).max() < 1e-5


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_bicubic(before, after):
    x = np.random.default_rng(0).normal(size=(*before, 3)).astype(np.float32)
    found = np.array(bicubic(mx.array(x), after))
    assert np.abs(found - naive(x, after, edges, cubic)).max() < 1e-5
