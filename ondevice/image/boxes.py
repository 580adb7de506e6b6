"""How much boxes overlap, in NumPy or MLX.

A box is x, y, width and height on the last axis, x and y of its upper left corner, as COCO has
it. Of two that a function takes, (..., 4) each, shapes are broadcast. ``xp`` is NumPy or MLX.

Paper: https://arxiv.org/abs/1902.09630 (generalized intersection over union)
"""

from __future__ import annotations

from typing import Any

import numpy as np

TINY = 1e-12  # instead of an area of 0, which nothing can be divided by


def from_centres(boxes: Any, xp: Any = np) -> Any:
    """(..., 4) boxes whose x and y are of their centres, as detectors give them."""
    return xp.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)


def areas(boxes: Any) -> Any:
    """(..., 4) boxes to (...)."""
    return boxes[..., 2] * boxes[..., 3]


def intersections(a: Any, b: Any, xp: Any = np) -> Any:
    """The areas that boxes have in common: (...)."""
    sides = xp.minimum(_ends(a), _ends(b)) - xp.maximum(a[..., :2], b[..., :2])
    sides = xp.maximum(sides, 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Any, b: Any, xp: Any = np) -> Any:
    """Intersections over unions: (...), 0 of two boxes without an area."""
    return _shares(a, b, xp)[0]


def generalized_iou(a: Any, b: Any, xp: Any = np) -> Any:
    """The same, less the share of the box around both that neither covers: -1 to 1."""
    share, union = _shares(a, b, xp)
    sides = xp.maximum(_ends(a), _ends(b)) - xp.minimum(a[..., :2], b[..., :2])
    around = sides[..., 0] * sides[..., 1]
    return share - (around - union) / xp.maximum(around, TINY)


def _ends(boxes: Any) -> Any:
    """(..., 2) lower right corners."""
    return boxes[..., :2] + boxes[..., 2:]


def _shares(a: Any, b: Any, xp: Any) -> tuple[Any, Any]:
    """Intersections over unions, and unions."""
    common = intersections(a, b, xp)
    union = areas(a) + areas(b) - common
    return common / xp.maximum(union, TINY), union
