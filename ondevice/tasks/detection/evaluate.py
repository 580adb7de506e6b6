"""How well detectors find the objects of a set in COCO's form, and whether one is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from unicodedata import normalize

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...cpu.threads import run
from ...errors import ConfigError, ImageError, printable
from ...image.open import as_rgb
from ...image.preprocess import preprocess
from ...nn.fuse import fuse
from ...signature import THRESHOLD
from ...signature.decode import Detection, Frame, in_pixels, suppressed
from ..dense import of_kind
from .average_precision import (
    Boxes,
    ClassFigures,
    ClassMatches,
    average_precision,
    class_figures,
    figures,
    match,
)
from .coco import CocoImage, CocoSet

if TYPE_CHECKING:
    from PIL import Image

    Array = np.ndarray[Any, Any]

KEPT = 300  # detections of an image, of all classes: what the authors of detectors measure with
DRAWS = 500  # sets of images that are drawn for an interval
WORST = 12  # images that are kept
OnError: TypeAlias = Callable[[int, ImageError], object]  # the position of an image, and why


@dataclass(frozen=True)
class Detector:
    """Something that finds objects of ``classes``.

    ``find(photo)`` are (N, 4) boxes in the photo's pixels (x and y of the corner, width,
    height), and their (N, classes) scores, below 0 where another box stands for one.
    """

    name: str
    classes: tuple[str, ...]
    find: Callable[[Image.Image], tuple[Array, Array]]


def model_detector(model: nn.Module, name: str = "") -> Detector:
    """A model in MLX, called ``name``. Raises ConfigError if it gives no boxes or no names."""
    signature = of_kind(model, "boxes")
    contract, fused = signature.images[0].contract, fuse(model.eval())
    names = {output.kind: output.name for output in signature.outputs}
    if "scores" not in names or not signature.labels or contract is None:
        raise ConfigError(f"{signature.model} names no classes of its boxes")

    def compute(x: mx.array) -> Any:
        return signature.compute(fused, x)

    def find(photo: Image.Image) -> tuple[Array, Array]:
        found: Any = run(compute, preprocess(photo, contract))
        boxes, scores = (np.array(found[names[kind]])[0] for kind in ("boxes", "scores"))
        boxes = in_pixels(boxes, Frame.of(photo.size, contract))
        return boxes, suppressed(boxes, scores, signature.max_overlap)

    return Detector(name or signature.model, signature.labels, find)


@dataclass(frozen=True)
class Mistakes:
    """An image with objects that were missed, or found where there is none: of what scores
    ``THRESHOLD`` or more and overlaps an object by half."""

    path: str
    missed: int
    false_alarms: int
    objects: tuple[Detection, ...] = field(repr=False)  # what is there, with a score of 1
    found: tuple[Detection, ...] = field(repr=False)


@dataclass(frozen=True)
class Evaluation:
    """``figures`` are COCO's, by the names of ``average_precision.FIGURES``, from 0 to 1, or
    None where the set has no such objects. ``worst`` are images, those with most mistakes
    first."""

    name: str
    images: int
    objects: int
    figures: Mapping[str, float | None]
    per_class: tuple[ClassFigures, ...]
    worst: tuple[Mistakes, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        facts = asdict(self)
        figures, worst = facts.pop("figures"), facts.pop("worst")
        kept = ("path", "missed", "false_alarms")
        return facts | figures | {"worst": [{k: image[k] for k in kept} for image in worst]}


@dataclass(frozen=True)
class Comparison:
    """Two detectors on the same images: how much larger the AP of the second is, and the 95 %
    interval of that over images drawn again; None where the set has no objects."""

    first: str
    second: str
    difference: float | None
    low: float | None
    high: float | None


def evaluate(
    detectors: Sequence[Detector],
    coco: CocoSet,
    on_error: OnError,
    show: Callable[[Sequence[CocoImage]], Iterable[CocoImage]] = iter,
) -> tuple[list[Evaluation], list[Comparison]]:
    """Each of ``detectors`` on the same images, and all others compared with the first.

    Images that cannot be used are left out, and given to ``on_error``; ``show`` may tell how
    far it is. Raises ConfigError for a detector that lacks a class of the set, ImageError if no
    image can be used.
    """
    orders = [class_order(detector, coco) for detector in detectors]
    images: list[CocoImage] = []
    found: list[list[Boxes]] = [[] for _ in detectors]
    for image, photo in _read(show(coco.images), on_error):
        images.append(image)
        for detector, order, boxes in zip(detectors, orders, found, strict=True):
            boxes.append(surest(*detector.find(photo), order))
    if not images:
        raise ImageError("none of the images can be used")
    matches = [match(images, boxes, len(coco.classes)) for boxes in found]
    evaluations = [
        _evaluation(detector.name, coco.classes, images, boxes, each)
        for detector, boxes, each in zip(detectors, found, matches, strict=True)
    ]
    pairs = zip(detectors[1:], matches[1:], strict=True)
    first = detectors[0].name
    return evaluations, [compare(first, d.name, matches[0], each) for d, each in pairs]


def _read(
    images: Iterable[CocoImage], on_error: OnError
) -> Iterator[tuple[CocoImage, Image.Image]]:
    """Each image that can be used, with its photo."""
    for position, image in enumerate(images):
        try:
            photo = as_rgb(image.path)
            image.check_size(photo.size)
        except ImageError as error:
            on_error(position, error)
            continue
        yield image, photo


def class_order(detector: Detector, coco: CocoSet) -> Array:
    """(classes of the detector,) positions in the set's classes, -1 of those it lacks.

    Raises ConfigError if objects of the set are of classes that the detector has not.
    """
    index = {normalize("NFC", name): i for i, name in enumerate(coco.classes)}
    known = [normalize("NFC", name) for name in detector.classes]
    counts = dict(zip(index, coco.counts(), strict=True))
    if unknown := [n for n, count in counts.items() if count and n not in known]:
        raise ConfigError(
            f"{coco.path}: {detector.name} has no class {_some(unknown)}; it has {_some(known)}"
        )
    return np.array([index.get(name, -1) for name in known])


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:8])) + (", …" if len(names) > 8 else "")


def surest(boxes: Array, scores: Array, order: Array) -> Boxes:
    """The ``KEPT`` surest of (N, 4) boxes with (N, classes) scores, of classes of the set. A
    score of 0 says that a box is not of that class.

    Raises ConfigError if they are not finite: the network overflows, or has no weights.
    """
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ConfigError("boxes or scores are NaN or infinite, so nothing can be measured")
    ranked = np.argsort(-scores, axis=None, kind="stable")[:KEPT]
    rows, columns = np.divmod(ranked, scores.shape[1])
    classes = order[columns]
    said = (classes >= 0) & (scores[rows, columns] > 0)
    rows, columns, classes = (a[said] for a in (rows, columns, classes))
    return Boxes(boxes[rows], classes, scores[rows, columns].astype(np.float64))


def _evaluation(
    name: str,
    classes: Sequence[str],
    images: Sequence[CocoImage],
    boxes: Sequence[Boxes],
    matches: Sequence[ClassMatches],
) -> Evaluation:
    return Evaluation(
        name,
        len(images),
        sum(int((~image.crowd).sum()) for image in images),
        figures(matches),
        class_figures(classes, matches),
        tuple(_worst(classes, images, boxes, matches)),
    )


def _worst(
    classes: Sequence[str],
    images: Sequence[CocoImage],
    boxes: Sequence[Boxes],
    matches: Sequence[ClassMatches],
) -> list[Mistakes]:
    """The images with the most mistakes, by intersections over unions of a half."""
    missed, false = mistakes(matches, len(images))
    order = np.argsort(-(missed + false), kind="stable")[:WORST]
    return [
        Mistakes(
            images[i].path,
            int(missed[i]),
            int(false[i]),
            _detections(
                classes, images[i].boxes, images[i].classes, np.ones(len(images[i].boxes))
            ),
            _detections(classes, boxes[i].boxes, boxes[i].classes, boxes[i].scores),
        )
        for i in order.tolist()
        if missed[i] + false[i]
    ]


def mistakes(matches: Sequence[ClassMatches], images: int) -> tuple[Array, Array]:
    """(images,) objects that are missed, and detections where there are none."""
    missed, false = np.zeros(images, int), np.zeros(images, int)
    for each in matches:
        sure = (each.scores >= THRESHOLD) & ~each.ignored[0, 0]
        right = each.right[0, 0] & sure
        missed += each.wanted[0] - np.bincount(each.images[right], minlength=images)
        false += np.bincount(each.images[sure & ~right], minlength=images)
    return missed, false


def _detections(
    classes: Sequence[str], boxes: Array, numbers: Array, scores: Array
) -> tuple[Detection, ...]:
    rows = zip(boxes.tolist(), numbers.tolist(), scores.tolist(), strict=True)
    return tuple(
        Detection(classes[number], score, number, (box[0], box[1], box[2], box[3]))
        for box, number, score in rows
        if score >= THRESHOLD
    )


def compare(
    first: str, second: str, a: Sequence[ClassMatches], b: Sequence[ClassMatches]
) -> Comparison:
    """The difference of the APs of two, with the same images drawn for both (a bootstrap)."""
    sides = [[each.ranking() for each in side] for side in (a, b)]
    whole = _difference(sides, None)
    images = a[0].wanted.shape[1]
    if whole is None:
        return Comparison(first, second, None, None, None)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(images, np.full(images, 1 / images), DRAWS)
    found = [_difference(sides, times) for times in drawn]
    low, high = np.percentile([d for d in found if d is not None], [2.5, 97.5])
    return Comparison(first, second, whole, float(low), float(high))


def _difference(sides: Sequence[Sequence[Any]], times: Array | None) -> float | None:
    a, b = (average_precision(side, times) for side in sides)
    return None if a is None or b is None else b - a
