"""How much boxes overlap: by counting pixels, and the same in MLX."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from pycocotools import mask

from ondevice.image.boxes import areas, from_centres, generalized_iou, intersections, iou

RNG = np.random.default_rng(0)
A, B = (
    np.concatenate([RNG.integers(0, 20, (40, 2)), RNG.integers(1, 12, (40, 2))], axis=1)
    for _ in range(2)
)


def drawn(box):
    """Which of 32 by 32 pixels it covers."""
    x, y, w, h = box
    grid = np.zeros((32, 32), bool)
    grid[y : y + h, x : x + w] = True
    return grid


def counted(a, b):
    """The intersection, the union, and the box around both."""
    both = drawn(a) | drawn(b)
    rows, columns = (np.flatnonzero(both.any(axis=axis)) for axis in (1, 0))
    around = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    return (drawn(a) & drawn(b)).sum(), both.sum(), around


def test_as_counted_in_pixels():
    common, union, around = np.array([counted(a, b) for a, b in zip(A, B, strict=True)]).T
    assert (common > 0).any()
    assert (common == 0).any()
    np.testing.assert_array_equal(intersections(A, B), common)
    np.testing.assert_allclose(iou(A, B), common / union)
    np.testing.assert_allclose(
        generalized_iou(A, B), common / union - (around - union) / around
    )


def test_each_with_each_as_pycocotools_has_it():
    whole = mask.iou(A.astype(float), B.astype(float), np.zeros(len(B)))
    np.testing.assert_array_equal(iou(A[:, None], B[None]), whole)


@pytest.mark.parametrize("function", [intersections, iou, generalized_iou])
def test_the_same_in_mlx(function):
    a, b = A.astype(np.float32), B.astype(np.float32)
    found = function(mx.array(a), mx.array(b), mx)
    np.testing.assert_allclose(np.array(found), function(a, b), rtol=1e-6, atol=1e-6)


def test_by_their_centres():
    boxes = np.array([[0.5, 0.4, 0.2, 0.6]])
    np.testing.assert_allclose(from_centres(boxes), [[0.4, 0.1, 0.2, 0.6]])
    np.testing.assert_allclose(from_centres(mx.array(boxes), mx), [[0.4, 0.1, 0.2, 0.6]], 1e-6)
    np.testing.assert_allclose(areas(boxes), [0.12])


def test_boxes_without_an_area():
    point = np.array([0.5, 0.5, 0, 0])
    assert iou(point, point) == 0
    assert generalized_iou(point, point) == 0
    assert iou(point, np.array([0, 0, 1, 1])) == 0
