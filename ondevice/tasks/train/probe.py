"""A head on features that stay as they are: nearest neighbours, class means, regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .metrics import fit_temperature, log_softmax

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

NEIGHBOURS = (1, 3, 5, 10, 20)
STRENGTHS = tuple(10.0**e for e in (-4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1))
SEARCH_STEPS = 40  # to compare strengths with; the head that is kept has more
FOLDS = 4
TEMPERATURE = 0.07  # of a neighbour's vote, by its cosine
ROWS = 1024  # compared with all others at once


@dataclass(frozen=True)
class Linear:
    """Scores ``x @ weight.T + bias`` of (N, dim) features: weight (classes, dim)."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        scores: Array = x @ self.weight.T + self.bias
        return scores


def nearest_neighbours(train: Array, labels: Array, others: Array, classes: int) -> Array:
    """(N, classes) votes of the nearest training images, for (N, dim) ``others``.

    How many vote is chosen by leaving each training image out in turn.
    """
    unit = train / np.maximum(np.linalg.norm(train, axis=1, keepdims=True), 1e-12)

    def votes(x: Array, counts: Sequence[int], skip: int) -> list[Array]:
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        found: list[list[Array]] = [[] for _ in counts]
        for first in range(0, len(x), ROWS):
            near = x[first : first + ROWS] @ unit.T
            order = np.argsort(-near, axis=1, kind="stable")[:, skip : max(counts) + skip]
            weight = np.exp(np.take_along_axis(near, order, axis=1) / TEMPERATURE)
            for own, k in zip(found, counts, strict=True):
                table = np.zeros((len(near), classes))
                rows = np.arange(len(near))[:, None]
                np.add.at(table, (rows, labels[order[:, :k]]), weight[:, :k])
                own.append(table)
        return [np.concatenate(own) for own in found]

    counts = [k for k in NEIGHBOURS if k < len(train)] or [1]
    right = [(v.argmax(-1) == labels).mean() for v in votes(train, counts, skip=1)]
    return votes(others, [counts[int(np.argmax(right))]], skip=0)[0]


def class_means(x: Array, labels: Array, classes: int) -> Linear:
    """The class whose mean is nearest, as a linear layer: |x - m|² but for what all share."""
    shift, scale = _standard(x)
    z = (x - shift) / scale
    means = np.stack([z[labels == c].mean(axis=0) for c in range(classes)])
    head = Linear(means, -(means**2).sum(axis=1) / 2)
    temperature = fit_temperature(head(z), labels)
    return _of_raw(Linear(head.weight / temperature, head.bias / temperature), shift, scale)


def regression(
    x: Array, labels: Array, weights: Array, *, seed: int = 0
) -> tuple[Linear, float]:
    """Logistic regression of (N, dim) features on (N,) classes; the strength of its L2 term.

    ``weights`` (classes,) are those of each class's images. The strength is the one with the
    smallest loss on images that were left out, a fold of each class at a time.
    """
    shift, scale = _standard(x)
    z, classes = (x - shift) / scale, len(weights)
    fold = _folds(labels, seed)
    losses = np.zeros(len(STRENGTHS))
    for number in range(FOLDS if fold.max() else 0):
        inside, outside = fold != number, fold == number
        head = None
        for i, strength in reversed(list(enumerate(STRENGTHS))):  # the next begins at the last
            head = fit(z[inside], labels[inside], weights, strength, head, SEARCH_STEPS)
            logs = log_softmax(head(z[outside]))
            losses[i] -= logs[np.arange(len(logs)), labels[outside]].sum()
    chosen = STRENGTHS[int(losses.argmin())] if losses.any() else 1e-2
    head = fit(
        z, labels, weights, chosen, Linear(np.zeros((classes, z.shape[1])), np.zeros(classes))
    )
    return _of_raw(head, shift, scale), chosen


def _standard(x: Array) -> tuple[Array, Array]:
    """(dim,) mean and deviation; 1 for what is the same in all images."""
    deviation = x.std(axis=0, dtype=np.float64)
    return x.mean(axis=0, dtype=np.float64), np.where(deviation > 1e-6, deviation, 1.0)


def _of_raw(head: Linear, shift: Array, scale: Array) -> Linear:
    """The head of standardized features as one of the features themselves."""
    weight = head.weight / scale
    return Linear(weight, head.bias - weight @ shift)


def _folds(labels: Array, seed: int) -> Array:
    """(N,) which fold an image is in, each class spread over all of them."""
    fold = np.zeros(len(labels), int)
    for label in np.unique(labels):
        own = np.random.default_rng([seed, int(label)]).permutation(
            np.flatnonzero(labels == label)
        )
        fold[own] = np.arange(len(own)) % FOLDS
    return fold


def fit(
    x: Array,
    labels: Array,
    weights: Array,
    strength: float,
    start: Linear | None = None,
    steps: int = 200,
) -> Linear:
    """Logistic regression with ``strength`` / 2 times the squares of its weights."""
    classes, dim = len(weights), x.shape[1]
    targets = np.eye(classes)[labels]
    share = weights[labels] / weights[labels].sum()

    def value(flat: Array) -> tuple[float, Array]:
        weight, bias = flat[: classes * dim].reshape(classes, dim), flat[classes * dim :]
        logs = log_softmax(x @ weight.T + bias)
        error = (np.exp(logs) - targets) * share[:, None]
        loss = (
            -(share * logs[np.arange(len(x)), labels]).sum() + strength / 2 * (weight**2).sum()
        )
        return loss, np.concatenate(
            [(error.T @ x + strength * weight).ravel(), error.sum(axis=0)]
        )

    zeros = np.zeros(classes * (dim + 1))
    begin = zeros if start is None else np.concatenate([start.weight.ravel(), start.bias])
    flat = minimize(value, begin, steps=steps)
    return Linear(flat[: classes * dim].reshape(classes, dim), flat[classes * dim :])


def minimize(
    value: Callable[[Array], tuple[float, Array]],
    x: Array,
    *,
    steps: int = 200,
    memory: int = 10,
) -> Array:
    """Where a smooth convex function is smallest: L-BFGS with a step that is halved until it
    is good. ``value`` gives the function and its gradient.

    D. C. Liu and J. Nocedal, Mathematical Programming 45 (1989).
    """
    loss, gradient = value(x)
    pairs: list[tuple[Array, Array]] = []
    for _ in range(steps):
        direction = -_inverse_hessian(gradient, pairs)
        slope = float(gradient @ direction)
        size = 1.0 if pairs else min(1.0, 1 / max(np.abs(gradient).sum(), 1e-12))
        for _ in range(30):
            found, new = value(x + size * direction)
            if found <= loss + 1e-4 * size * slope:
                break
            size /= 2
        else:
            return x
        if gained := float((new - gradient) @ direction) > 0:
            pairs = [*pairs[1 - memory :], (size * direction, new - gradient)]
        x, gradient, last, loss = x + size * direction, new, loss, found
        if np.abs(gradient).max() < 1e-6 or (gained and last - loss < 1e-10 * abs(loss)):
            break
    return x


def _inverse_hessian(gradient: Array, pairs: Sequence[tuple[Array, Array]]) -> Array:
    """The inverse of the curvature that ``pairs`` of steps and changes show, of a gradient."""
    q, shares = gradient.copy(), []
    for step, change in reversed(pairs):
        share = step @ q / (step @ change)
        q -= share * change
        shares.append(share)
    if pairs:
        step, change = pairs[-1]
        q *= step @ change / (change @ change)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        q += step * (share - change @ q / (step @ change))
    return q
