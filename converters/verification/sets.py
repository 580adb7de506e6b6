"""Boxes that two sides found in one image: sets, since nothing says which comes first.

A detector that chooses its best candidates may, of two that score alike, choose either, and in
another order; that is no error of the boxes that it gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ondevice.image.boxes import from_centres, iou

from ..graph.graph import Array

SURE = 0.3  # the least score of a box that has to be matched ...
LEAST = 10  # ... unless fewer reach it: then these are the surest
SAME = 0.99  # the least intersection over union of boxes that are the same
ALIKE = 0.75  # of boxes that mark the same object, as compression may leave them


def paired(
    kinds: Mapping[str, str], wanted: Mapping[str, Any], got: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, float]]:
    """``got`` with its boxes and scores in the order of those in ``wanted`` that they fit
    best, and the shares of ``matched`` ones, the same class and nearly the same box, and of
    ``alike`` ones, the same class and a box around the same object.

    Nothing changes where there are no boxes with scores for each class, or another number of
    them. Those of one image may be without a batch axis.
    """
    found = {name: np.asarray(got[name]) for name in wanted}
    names = {kind: name for name, kind in kinds.items() if kind in ("boxes", "scores")}
    if len(names) != 2:
        return found, {}
    boxes, scores = names["boxes"], names["scores"]
    if not wanted[boxes].ndim == wanted[scores].ndim in (2, 3):  # or no scores for each class
        return found, {}
    if any(wanted[name].shape != found[name].shape for name in (boxes, scores)):
        return found, {}
    if wanted[scores].ndim == 2:
        both = ({n: side[n][None] for n in (boxes, scores)} for side in (wanted, found))
        batch, figures = paired(kinds, *both)
        return found | {name: array[0] for name, array in batch.items()}, figures
    for row in range(len(wanted[boxes])):
        ours, theirs = ((side[boxes][row], side[scores][row]) for side in (wanted, found))
        order = _order(_likeness(ours[0][:, None], theirs[0]), ours[1], theirs[1])
        for name in (boxes, scores):
            found[name] = found[name].copy()
            found[name][row] = found[name][row][order]
    likeness = _of_sure_ones(wanted[boxes], wanted[scores], found[boxes], found[scores])
    shares = {"matched": likeness >= SAME, "alike": likeness >= ALIKE}
    return found, {name: float(share.mean()) for name, share in shares.items()}


def _likeness(a: Array, b: Array) -> Array:
    """(..., 4) boxes, centre and size, to their (...) intersections over unions."""
    return np.asarray(iou(from_centres(a), from_centres(b)))


def _order(likeness: Array, ours: Array, theirs: Array) -> Array:
    """Which of theirs stands for each of ours: the most alike are paired first."""
    apart = np.abs(ours[:, None] - theirs[None]).max(axis=-1)
    count = len(ours)
    ranked = np.argsort(apart - likeness, axis=None, kind="stable")
    order, is_free, left = [-1] * count, [True] * count, count
    for mine, other in zip(*(part.tolist() for part in np.divmod(ranked, count)), strict=True):
        if order[mine] < 0 and is_free[other]:
            order[mine], is_free[other], left = other, False, left - 1
            if not left:  # of a thousand boxes there are a million pairs
                break
    return np.array(order)


def _of_sure_ones(boxes: Array, scores: Array, got_boxes: Array, got_scores: Array) -> Array:
    """Of each sure box of a batch its intersection over union with its pair; 0 if the classes
    differ."""
    found: list[Array] = []
    for a, s, b, t in zip(boxes, scores, got_boxes, got_scores, strict=True):
        best = s.max(axis=-1)
        limit = min(SURE, float(np.sort(best)[-min(LEAST, len(best))]))
        same_class = s.argmax(axis=-1) == t.argmax(axis=-1)
        found.append((_likeness(a, b) * same_class)[best >= limit])
    return np.concatenate(found)
