"""What a detector's candidates lack of the objects in an image.

Papers: https://arxiv.org/abs/2005.12872 (DETR), https://arxiv.org/abs/2008.13367 (varifocal
loss), https://arxiv.org/abs/1902.09630 (generalized intersection over union)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ...image.boxes import from_centres, generalized_iou, iou
from .matching import NONE, match, match_anchors

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

CLASS_WEIGHT, BOX_WEIGHT, OVERLAP_WEIGHT = 2.0, 5.0, 2.0
GAMMA = 1.5  # of candidates that stand for nothing: they count by their score to this power

Candidates = Sequence[tuple[mx.array, ...]]


def detection_loss(found: Candidates, targets: Mapping[str, mx.array | Array]) -> mx.array:
    """The sum over what ``Detr.candidates`` gives, for each object of a batch.

    ``targets`` are ``boxes`` (B, M, 4), centre and size as parts of the image, and their
    ``classes`` (B, M), ``NONE`` where an image has fewer than M. Candidates with anchors are
    matched by these alone: which is to find an object is then settled from the first step on.
    """
    boxes, classes = (np.array(targets[name]) for name in ("boxes", "classes"))
    total = mx.array(0.0)
    for logits, places, *anchors in found:
        if anchors:
            at = _matches_of_anchors(np.array(anchors[0]), boxes, classes)
        else:
            at = _matches(logits, places, boxes, classes)
        total = total + _layer_loss(logits, places, boxes, classes, at)
    return total


def _matches(logits: mx.array, places: mx.array, boxes: Array, classes: Array) -> Array:
    """(B, N) numbers of objects."""
    mx.eval(logits, places)
    scores, found = (np.array(mx.stop_gradient(x)) for x in (logits, places))
    rows = zip(scores, found, boxes, classes, strict=True)
    return np.stack([match(s, p, b[c != NONE], c[c != NONE]) for s, p, b, c in rows])


def _matches_of_anchors(anchors: Array, boxes: Array, classes: Array) -> Array:
    """(B, N) numbers of objects."""
    rows = zip(boxes, classes, strict=True)
    return np.stack([match_anchors(anchors, b[c != NONE]) for b, c in rows])


def _layer_loss(
    logits: mx.array, places: mx.array, boxes: Array, classes: Array, at: Array
) -> mx.array:
    """Of (B, N, classes) logits and (B, N, 4) places, which stand for the (B, N) objects."""
    matched = (at != NONE).astype(np.float32)
    row = np.arange(len(at))[:, None]
    if not boxes.shape[1]:
        boxes, classes = np.zeros((len(at), 1, 4), np.float32), np.zeros((len(at), 1), int)
    wanted = mx.array(np.where(matched[..., None], boxes[row, at], 0.5).astype(np.float32))
    hot = np.eye(logits.shape[-1], dtype=np.float32)[classes[row, at]] * matched[..., None]
    weight, count = mx.array(matched), max(float(matched.sum()), 1.0)
    found, objects = from_centres(places, mx), from_centres(wanted, mx)
    quality = mx.stop_gradient(iou(found, objects, mx))
    classed = varifocal(logits, mx.array(hot), quality).sum()
    apart = (mx.abs(places - wanted).sum(axis=-1) * weight).sum()
    outside = ((1 - generalized_iou(found, objects, mx)) * weight).sum()
    return (CLASS_WEIGHT * classed + BOX_WEIGHT * apart + OVERLAP_WEIGHT * outside) / count


def varifocal(logits: mx.array, hot: mx.array, quality: mx.array) -> mx.array:
    """(B, N, classes), whose target is ``quality`` (B, N) where ``hot``, else 0.

    Unlike in the paper all scores of a candidate that stands for an object weigh the same:
    classes are told apart from the start, when boxes are poor and scores low. Those of others
    weigh the more the higher they are.
    """
    target = hot * quality[..., None]
    share, matched = mx.stop_gradient(mx.sigmoid(logits)), hot.max(axis=-1, keepdims=True)
    weight = mx.power(share, GAMMA) * (1 - matched) + matched
    return weight * (mx.logaddexp(logits, mx.array(0.0)) - logits * target)
