"""Optimal scalar palettes: weighted k-means in one dimension.

On sorted values every cluster is an interval, so that one Lloyd step is k binary searches
in running sums: no step looks at all values. The start is exact on a coarse grid: dynamic
programming over at most 128 quantiles (Wang and Song, "Ckmeans.1d.dp", 2011).
"""

from __future__ import annotations

import numpy as np

from ..graph.graph import Array

_GRID = 128
_STEPS = 100


def kmeans(values: Array, clusters: int, weights: Array | None = None) -> Array:
    """``clusters`` sorted centres of ``values``, in float64; each value counts ``weights``.

    Deterministic. With fewer distinct values than clusters these are the centres, the last
    of them repeated.
    """
    order = np.argsort(values, axis=None, kind="stable")
    x = values.ravel()[order].astype(np.float64)
    w = np.ones_like(x) if weights is None else weights.ravel()[order].astype(np.float64)
    w = w + 1e-9 * (w.mean() or 1.0)  # a weight of zero would leave a centre undefined
    distinct = np.unique(x)
    if len(distinct) <= clusters:
        return np.pad(distinct, (0, clusters - len(distinct)), mode="edge")
    mass = np.concatenate([[0.0], np.cumsum(w)])
    moment = np.concatenate([[0.0], np.cumsum(w * x)])
    return _lloyd(x, mass, moment, _start(x, w, mass, clusters))


def nearest(values: Array, table: Array) -> Array:
    """For each value the index of the nearest entry of a sorted table."""
    middle = (table[1:].astype(np.float64) + table[:-1].astype(np.float64)) / 2
    return np.searchsorted(middle, values).astype(np.uint8)


def _lloyd(x: Array, mass: Array, moment: Array, centres: Array) -> Array:
    for _ in range(_STEPS):
        cuts = np.searchsorted(x, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], cuts, [len(x)]])
        total = np.diff(mass[edges])
        mean = np.diff(moment[edges]) / np.where(total > 0, total, 1)
        moved = np.sort(np.where(total > 0, mean, centres))
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _start(x: Array, w: Array, mass: Array, clusters: int) -> Array:
    """Centres that are optimal for the values merged into quantiles of equal mass."""
    bins = min(_GRID, len(x)) if clusters <= 32 else min(8 * clusters, len(x))
    if bins == len(x):
        starts = np.arange(bins)
    else:
        edges = np.searchsorted(mass, np.linspace(0, mass[-1], bins + 1)[1:-1])
        if clusters <= 32:  # few values far out are a bin of their own, not lost in a large one
            even = np.searchsorted(x, np.linspace(x[0], x[-1], bins + 1)[1:-1])
            edges = np.concatenate([edges, even])
        edges = np.unique(edges)
        starts = np.concatenate([[0], edges[(edges > 0) & (edges < len(x))]])
    total = np.add.reduceat(w, starts)
    mean = np.add.reduceat(w * x, starts) / total
    if len(mean) <= clusters:
        return np.linspace(x[0], x[-1], clusters)
    return _exact(mean, total, clusters) if clusters <= 32 else _even(mean, total, clusters)


def _even(mean: Array, total: Array, clusters: int) -> Array:
    """Centres as dense as the cube root of the density, which is optimal for many of them.

    Panter and Dite, "Quantization distortion in pulse-count modulation", 1951.
    """
    gaps = np.gradient(mean)
    density = np.cumsum(np.cbrt(total / np.maximum(gaps, 1e-12)) * gaps)
    wanted = (np.arange(clusters) + 0.5) / clusters * density[-1]
    return np.interp(wanted, density, mean)


def _exact(mean: Array, total: Array, clusters: int) -> Array:
    """Dynamic programming over every division of the bins into intervals."""
    n = len(mean)
    mass = np.concatenate([[0.0], np.cumsum(total)])
    first = np.concatenate([[0.0], np.cumsum(total * mean)])
    second = np.concatenate([[0.0], np.cumsum(total * mean**2)])
    begin, end = np.meshgrid(np.arange(n), np.arange(1, n + 1), indexing="ij")
    weight = np.where(end > begin, mass[end] - mass[begin], 1)
    cost = second[end] - second[begin] - (first[end] - first[begin]) ** 2 / weight
    cost = np.where(end > begin, np.maximum(cost, 0), np.inf)  # (begin, end - 1)
    best, cuts = cost[0], []
    for _ in range(clusters - 1):
        through = best[:-1, None] + cost[1:]  # the last cluster begins after bin i
        cuts.append(through.argmin(axis=0))
        best = through.min(axis=0)
    edges = [n]
    for cut in reversed(cuts):
        edges.append(int(cut[edges[-1] - 1]) + 1)
    marks = np.array([0, *reversed(edges)])
    return np.diff(first[marks]) / np.diff(mass[marks])
