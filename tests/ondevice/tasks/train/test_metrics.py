"""Metrics against figures worked out by hand, and scipy."""

from __future__ import annotations

import numpy as np
import pytest

from ondevice.tasks.train import metrics

LOGITS = np.array([[3.0, 1, 0], [0, 2, 1], [0, 3, 1], [1, 1, 0], [0, 0, 5]])
LABELS = np.array([0, 1, 2, 1, 2])


def test_top_k_counts_ties_in_order():
    assert metrics.top_k(LOGITS, LABELS, 1) == pytest.approx(3 / 5)
    assert metrics.top_k(LOGITS, LABELS, 2) == 1
    assert (LOGITS.argmax(-1) == LABELS).mean() == metrics.top_k(LOGITS, LABELS, 1)


def test_confusion_and_what_follows():
    table = metrics.confusion(LOGITS.argmax(-1), LABELS, 3)
    np.testing.assert_array_equal(table, [[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    precision, recall, f1 = metrics.precision_recall_f1(table)
    np.testing.assert_allclose(precision, [1 / 2, 1 / 2, 1])
    np.testing.assert_allclose(recall, [1, 1 / 2, 1 / 2])
    np.testing.assert_allclose(f1, [2 / 3, 1 / 2, 2 / 3])


@pytest.mark.parametrize(("right", "total"), [(0, 10), (7, 10), (10, 10), (456, 500), (1, 1)])
def test_wilson_is_scipys(right, total):
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert metrics.wilson(right, total) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (5, 5), (3, 12), (40, 71), (0, 2000)])
def test_mcnemar_is_an_exact_binomial_test(a, b):
    stats = pytest.importorskip("scipy.stats")
    first = np.array([True] * a + [False] * b + [True] * 3)
    second = np.array([False] * a + [True] * b + [True] * 3)
    wanted = stats.binomtest(a, a + b).pvalue if a + b else 1
    assert metrics.mcnemar(first, second) == (a, b, pytest.approx(wanted, rel=1e-9))


def test_calibration():
    """80 of 100 right at a confidence of 0.9."""
    logits = np.tile([np.log(9.0), 0.0], (100, 1))
    labels = (np.arange(100) >= 80).astype(int)
    assert metrics.calibration_error(logits, labels) == pytest.approx(0.1)
    temperature = metrics.fit_temperature(logits, labels)
    assert np.log(9) / temperature == pytest.approx(np.log(4), rel=1e-4)  # 0.8
    assert metrics.calibration_error(logits / temperature, labels) < 1e-4
