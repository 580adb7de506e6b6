"""Average precision and recall of boxes by COCO's protocol, to the digits of pycocotools.

The protocol: https://cocodataset.org/#detection-eval. In each image, detections of a class go
from the surest to the least sure, each takes the object that it overlaps most and that is
still free; what takes none is a false alarm. Objects of a crowd, or of another size than is
asked for, count neither way, and so do detections that take those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...image.boxes import TINY, areas, intersections, iou

if TYPE_CHECKING:
    from .coco import CocoImage

    Array = np.ndarray[Any, Any]

IOU = np.linspace(0.5, 0.95, 10)  # intersections over unions from which a box is right
RECALL = np.linspace(0, 1, 101)  # at which precision is read
MOST = 100  # detections of a class in an image
# Square pixels of objects, both ends included.
AREAS: dict[str, tuple[float, float]] = {
    "all": (0, 1e10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}


@dataclass(frozen=True)
class Figure:
    """What is averaged over classes: precision, or recall, of objects of an area, with at most
    so many detections of an image, at one intersection over union or over all."""

    of: str = "precision"
    area: str = "all"
    most: int = MOST
    iou: float | None = None


FIGURES: dict[str, Figure] = {  # in the order of pycocotools' ``stats``
    "AP": Figure(),
    "AP50": Figure(iou=0.5),
    "AP75": Figure(iou=0.75),
    "APs": Figure(area="small"),
    "APm": Figure(area="medium"),
    "APl": Figure(area="large"),
    "AR1": Figure("recall", most=1),
    "AR10": Figure("recall", most=10),
    "AR100": Figure("recall"),
    "ARs": Figure("recall", area="small"),
    "ARm": Figure("recall", area="medium"),
    "ARl": Figure("recall", area="large"),
}


@dataclass(frozen=True, eq=False)
class Boxes:
    """The D detections of an image: ``boxes`` (D, 4) are x, y, width and height in pixels,
    ``classes`` (D,) are numbers, ``scores`` (D,) are larger for surer ones."""

    boxes: Array
    classes: Array
    scores: Array


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """What became of the D detections of one class in N images.

    ``images`` (D,) are positions, ``ranks`` (D,) count from 0 in each image. ``right`` and
    ``ignored`` are (areas, IOU, D), ``wanted`` (areas, N) counts the objects that have to be
    found.
    """

    scores: Array
    images: Array
    ranks: Array
    right: Array
    ignored: Array
    wanted: Array

    def ranking(self, area: str = "all", most: int = MOST) -> Ranking:
        """The detections of all images together, the surest first."""
        row = list(AREAS).index(area)
        kept = np.flatnonzero(self.ranks < most)
        kept = kept[np.argsort(-self.scores[kept], kind="stable")]
        counted = ~self.ignored[row][:, kept]
        hits = counted & self.right[row][:, kept]
        found = np.flatnonzero(hits.any(axis=0))
        end = int(found[-1]) + 1 if len(found) else 0  # nothing depends on what is less sure
        counted = counted[:, :end]
        if (counted == counted[0]).all():
            counted = counted[:1]
        at = tuple(np.flatnonzero(row) for row in hits)
        return Ranking(at, counted, self.images[kept[:end]], self.wanted[row])


@dataclass(frozen=True, eq=False)
class Ranking:
    """D detections of one class, the surest first, until the last one that is right.

    ``hits`` has, for each of ``IOU``, the positions of those that are right, ``counted`` (IOU
    or 1, D) which count at all; ``wanted`` (N,) are the objects of each image.
    """

    hits: tuple[Array, ...]
    counted: Array
    images: Array
    wanted: Array

    def curves(self, times: Array | None = None) -> tuple[Array, Array] | None:
        """Precision (IOU, RECALL) and the final recall (IOU,); None if no object is wanted.

        Each image counts as often as ``times`` (N,) says. At each recall it is the best
        precision that has it or more, so that only detections that are right are looked at.
        """
        times = np.ones_like(self.wanted) if times is None else times
        wanted = int(self.wanted @ times)
        if not wanted:
            return None
        weights = times[self.images]
        totals = (self.counted * weights).cumsum(axis=1)
        precision, recall = np.zeros((len(IOU), len(RECALL))), np.zeros(len(IOU))
        for i, (at, total) in enumerate(
            zip(self.hits, np.broadcast_to(totals, (len(IOU), totals.shape[1])), strict=True)
        ):
            right = weights[at].cumsum()
            best = np.maximum.accumulate((right / (total[at] + np.spacing(1)))[::-1])[::-1]
            precision[i] = np.append(best, 0)[np.searchsorted(right / wanted, RECALL)]
            recall[i] = right[-1] / wanted if len(right) else 0
        return precision, recall


def match(
    truth: Sequence[CocoImage], found: Sequence[Boxes], classes: int
) -> list[ClassMatches]:
    """What became of the boxes ``found`` in each image of ``truth``, for each class."""
    rows: list[list[_ImageMatches]] = [[] for _ in range(classes)]
    for image, (wanted, got) in enumerate(zip(truth, found, strict=True)):
        for number in np.union1d(wanted.classes, got.classes):
            rows[number].append(_matched(image, number, wanted, got))
    return [_joined(row, len(truth)) for row in rows]


@dataclass(frozen=True, eq=False)
class _ImageMatches:
    """As ``ClassMatches``, of one image; ``wanted`` is (areas,)."""

    image: int
    scores: Array
    right: Array
    ignored: Array
    wanted: Array


def _matched(image: int, number: int, wanted: CocoImage, got: Boxes) -> _ImageMatches:
    objects, own = wanted.classes == number, got.classes == number
    order = np.argsort(-got.scores[own], kind="stable")[:MOST]
    boxes, scores = got.boxes[own][order], got.scores[own][order]
    crowd = wanted.crowd[objects]
    is_other = crowd | _outside(wanted.areas[objects])
    right, ignored = _taken(_overlaps(boxes, wanted.boxes[objects], crowd), crowd, is_other)
    ignored |= ~right & _outside(boxes[:, 2] * boxes[:, 3])[:, None]
    return _ImageMatches(image, scores, right, ignored, (~is_other).sum(axis=1))


def _outside(sizes: Array) -> Array:
    """(areas, N): which of (N,) sizes is not of an area."""
    low, high = np.array(list(AREAS.values())).T[..., None]
    return (sizes < low) | (sizes > high)


def _overlaps(found: Array, objects: Array, crowd: Array) -> Array:
    """(D, 4) and (G, 4) boxes of corners and sizes to (D, G) intersections over unions; over
    the found box alone, of a crowd."""
    found = found[:, None]
    of_found = intersections(found, objects) / np.maximum(areas(found), TINY)
    return np.where(crowd, of_found, iou(found, objects))


def _taken(iou: Array, crowd: Array, is_other: Array) -> tuple[Array, Array]:
    """Which of D detections take an object, and which of these count neither way, each (areas,
    IOU, D). Objects that count go first, of a crowd any number of detections take one."""
    detections, objects = iou.shape
    shape = (len(AREAS), len(IOU), detections)
    right, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    if not objects:
        return right, ignored
    limits = IOU[:, None]
    free = np.ones((*shape[:2], objects), bool)
    others = np.broadcast_to(is_other[:, None], free.shape)
    for d in np.flatnonzero(iou.max(axis=1) >= limits[0]):
        possible = (iou[d] >= limits) & (free | crowd)
        first = possible & ~others
        possible = np.where(first.any(axis=2, keepdims=True), first, possible)
        rated = np.where(possible, iou[d], -1.0)
        best = objects - 1 - rated[..., ::-1].argmax(axis=2)[..., None]  # the last of equals
        taken = possible & (np.arange(objects) == best)
        free &= ~taken
        right[..., d] = taken.any(axis=2)
        ignored[..., d] = (taken & others).any(axis=2)
    return right, ignored


def _joined(rows: Sequence[_ImageMatches], images: int) -> ClassMatches:
    wanted = np.zeros((len(AREAS), images), np.int64)
    for row in rows:
        wanted[:, row.image] = row.wanted
    empty = np.zeros((len(AREAS), len(IOU), 0), bool)
    counts = [len(row.scores) for row in rows]
    return ClassMatches(
        np.concatenate([np.zeros(0), *(row.scores for row in rows)]),
        np.repeat(np.array([row.image for row in rows], np.int64), counts),
        np.concatenate([np.zeros(0, np.int64), *map(np.arange, counts)]),
        np.concatenate([empty, *(row.right for row in rows)], axis=2),
        np.concatenate([empty, *(row.ignored for row in rows)], axis=2),
        wanted,
    )


@dataclass(frozen=True)
class ClassFigures:
    """One class: ``AP`` and ``AP50``, None where no image has an object of it, and
    ``precision`` at each of ``RECALL`` with an intersection over union of 0.5."""

    name: str
    objects: int
    detections: int
    AP: float | None
    AP50: float | None
    precision: tuple[float, ...]


def figures(matches: Sequence[ClassMatches]) -> dict[str, float | None]:
    """Those of ``FIGURES``, averaged over the classes that have objects; None if none has."""

    @cache
    def curves(area: str, most: int) -> list[tuple[Array, Array]]:
        found = (each.ranking(area, most).curves() for each in matches)
        return [each for each in found if each is not None]

    def average(figure: Figure) -> Iterator[float]:
        rows = slice(None) if figure.iou is None else figure.iou == IOU
        for precision, recall in curves(figure.area, figure.most):
            values = precision if figure.of == "precision" else recall
            yield float(values[rows].mean())

    return {name: _mean(list(average(figure))) for name, figure in FIGURES.items()}


def class_figures(
    names: Sequence[str], matches: Sequence[ClassMatches]
) -> tuple[ClassFigures, ...]:
    """Those of each class."""
    found = []
    for name, each in zip(names, matches, strict=True):
        curves = each.ranking().curves()
        precision = curves[0] if curves else None
        found.append(
            ClassFigures(
                name,
                int(each.wanted[0].sum()),
                len(each.scores),
                None if precision is None else float(precision.mean()),
                None if precision is None else float(precision[0].mean()),
                () if precision is None else tuple(precision[0].tolist()),
            )
        )
    return tuple(found)


def average_precision(rankings: Sequence[Ranking], times: Array | None = None) -> float | None:
    """AP of the classes that have objects, where each image counts as often as ``times`` (N,)
    says."""
    found = (each.curves(times) for each in rankings)
    return _mean([float(curves[0].mean()) for curves in found if curves])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
