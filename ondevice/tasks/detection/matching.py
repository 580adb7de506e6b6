"""Which candidate of a detector stands for which object.

Papers: https://arxiv.org/abs/2005.12872 (DETR), https://doi.org/10.1109/TAES.2016.140952 (the
shortest augmenting paths)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...image.boxes import from_centres, generalized_iou

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

NONE = -1
CLASS_COST, BOX_COST, OVERLAP_COST = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss, by which classes are compared

SPREAD = 1.8  # the side of the objects of an anchor, by its own: finer maps tell more apart


def match(logits: Array, boxes: Array, wanted: Array, classes: Array) -> Array:
    """(N, classes) logits and (N, 4) boxes of an image to the (N,) numbers of the objects that
    they stand for, ``NONE`` for most: those of (M, 4) boxes and their (M,) classes.

    Of the matchings that give each object a candidate, as far as there are enough, it is the
    one whose differences are the least together.
    """
    return _cheapest(costs(logits, boxes, wanted, classes))


def match_anchors(anchors: Array, wanted: Array) -> Array:
    """The same of (N, 4) anchors, each for objects around it ``SPREAD`` times as large."""
    squares = anchors * np.array([1, 1, SPREAD, SPREAD])
    alike = generalized_iou(from_centres(squares)[:, None], from_centres(wanted))
    return _cheapest(-alike.astype(np.float64))


def _cheapest(cost: Array) -> Array:
    """(N, M) costs to the (N,) numbers of the objects, or ``NONE``."""
    count, objects = cost.shape
    found = np.full(count, NONE)
    if not objects:
        return found
    if objects <= count:
        found[assignment(cost.T)] = np.arange(objects)
    else:
        found[:] = assignment(cost)
    return found


def costs(logits: Array, boxes: Array, wanted: Array, classes: Array) -> Array:
    """(N, M) differences of N candidates from M objects, in class, place and overlap."""
    share = 1 / (1 + np.exp(-logits[:, classes].astype(np.float64)))
    hit = ALPHA * (1 - share) ** GAMMA * -np.log(share + 1e-8)
    miss = (1 - ALPHA) * share**GAMMA * -np.log(1 - share + 1e-8)
    apart = np.abs(boxes[:, None] - wanted[None]).sum(axis=-1)
    overlap = generalized_iou(from_centres(boxes)[:, None], from_centres(wanted))
    return CLASS_COST * (hit - miss) + BOX_COST * apart - OVERLAP_COST * overlap


def assignment(cost: Array) -> Array:
    """(n, m) costs, n <= m, to the (n,) columns, all different, of the least sum."""
    count, width = cost.shape
    by_row, by_column = cost.min(axis=1), np.zeros(width)  # prices, which no cost is below
    row_of, column_of = np.full(width, NONE), np.full(count, NONE)
    nearest = cost.argmin(axis=1)
    columns, first = np.unique(nearest, return_index=True)
    row_of[columns], column_of[first] = first, columns
    for row in np.flatnonzero(column_of == NONE):
        _augment(cost, int(row), by_row, by_column, row_of, column_of)
    return column_of


def _augment(
    cost: Array, row: int, by_row: Array, by_column: Array, row_of: Array, column_of: Array
) -> None:
    """Give ``row`` a column, others another one, along the cheapest path to a free column."""
    width = len(row_of)
    distance, before = np.full(width, np.inf), np.full(width, NONE)
    seen, rows, at, reached = np.zeros(width, bool), list[int](), row, 0.0
    while True:
        rows.append(at)
        here = reached + cost[at] - by_row[at] - by_column
        nearer = ~seen & (here < distance)
        distance[nearer], before[nearer] = here[nearer], at
        column = int(np.where(seen, np.inf, distance).argmin())
        reached, seen[column] = float(distance[column]), True
        if row_of[column] == NONE:
            break
        at = int(row_of[column])
    by_row[row] += reached
    by_row[rows[1:]] += reached - distance[column_of[rows[1:]]]
    by_column[seen] -= reached - distance[seen]
    while column != NONE:
        at = int(before[column])
        row_of[column] = at
        column_of[at], column = column, int(column_of[at])
