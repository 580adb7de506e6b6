"""What predictions are worth: accuracy with its uncertainty, confusion, calibration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

Z = 1.959964  # a normal variable is within so many deviations in 95 of 100 cases
BINS = 15  # of confidence


def log_softmax(logits: Array) -> Array:
    """(N, classes) logarithms of probabilities, in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True).astype(np.float64)
    total: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return total


def top_k(logits: Array, labels: Array, k: int) -> float:
    """The share of rows whose class is among the ``k`` with the largest scores."""
    own = np.take_along_axis(logits, labels[:, None], axis=-1)
    before = (logits > own).sum(axis=-1)
    ties = (logits == own).cumsum(axis=-1)[np.arange(len(labels)), labels] - 1
    return float((before + ties < k).mean())


def confusion(predicted: Array, labels: Array, classes: int) -> Array:
    """(classes, classes) counts: rows are what an image shows, columns what was said."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table


def precision_recall_f1(table: Array) -> tuple[Array, Array, Array]:
    """(classes,) each, of a confusion; 0 where nothing was said or there is nothing."""
    right = np.diag(table).astype(np.float64)
    precision = right / np.maximum(table.sum(axis=0), 1)
    recall = right / np.maximum(table.sum(axis=1), 1)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return precision, recall, f1


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, ``right`` of ``total``; (0, 1) of nothing.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if not total:
        return 0.0, 1.0
    share, z2 = right / total, Z * Z / total
    middle = share + z2 / 2
    spread = Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total))
    low, high = (middle - spread) / (1 + z2), (middle + spread) / (1 + z2)
    return (0.0 if right == 0 else low), (1.0 if right == total else high)


def calibration_error(logits: Array, labels: Array, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence is from accuracy, over bins of confidence.

    Paper: https://arxiv.org/abs/1706.04599
    """
    probabilities = np.exp(log_softmax(logits))
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(index, confidence - right, bins)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(logits: Array, labels: Array) -> float:
    """What to divide logits by so that the labels are most likely: 0.05 to 20."""

    def loss(log: float) -> float:
        found = log_softmax(logits / math.exp(log))
        return -float(found[np.arange(len(labels)), labels].mean())

    low, high = math.log(0.05), math.log(20)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return math.exp((low + high) / 2)


def mcnemar(first: Array, second: Array) -> tuple[int, int, float]:
    """Images that only the first of two got right, only the second, and the exact p.

    ``first`` and ``second`` are (N,) truth values. p is how often chance alone would part two
    equally good models at least so unevenly. Q. McNemar, Psychometrika 12 (1947).
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    n, few = only_first + only_second, min(only_first, only_second)
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(few + 1)
    ]
    tail = sum(math.exp(log - n * math.log(2)) for log in logs)
    return only_first, only_second, min(1.0, 2 * tail)
