"""How well models name the class of each pixel, and whether one is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from unicodedata import normalize

import mlx.nn as nn
import numpy as np

from ...errors import ConfigError, ImageError, printable
from ...image.open import as_rgb
from ...nn.fuse import fuse
from ..dense import of_kind, predict
from .masks import MaskedImage, MaskSet, class_numbers

if TYPE_CHECKING:
    from PIL import Image

    Array = np.ndarray[Any, Any]

DRAWS = 500  # sets of images that are drawn for an interval
WORST = 12  # images that are kept
OnError: TypeAlias = Callable[[int, ImageError], object]  # the position of an image, and why


@dataclass(frozen=True)
class Segmenter:
    """Something that names pixels: ``find(photo)`` are (height, width) positions in
    ``classes``."""

    name: str
    classes: tuple[str, ...]
    find: Callable[[Image.Image], Array]


def model_segmenter(model: nn.Module, name: str = "") -> Segmenter:
    """A model in MLX, called ``name``. Raises ConfigError if it gives no mask or no names."""
    signature, fused = of_kind(model, "mask"), fuse(model.eval())
    if not signature.labels:
        raise ConfigError(f"{signature.model} names no classes of its masks")

    def find(photo: Image.Image) -> Array:
        (result,) = predict(fused, [photo], "mask")
        return np.asarray(result.found)

    return Segmenter(name or signature.model, signature.labels, find)


@dataclass(frozen=True, eq=False)
class Counts:
    """Pixels of each of C classes in each of N images, (N, C): that are ``there``, that were
    ``said``, and that were both."""

    there: Array
    said: Array
    right: Array

    def iou(self, times: Array | None = None) -> Array:
        """(C,) intersections over unions, NaN of classes neither there nor said; each image
        counts as often as ``times`` (N,) says."""
        there, said, right = (_total(a, times) for a in (self.there, self.said, self.right))
        return _ratio(right, there + said - right)

    @property
    def figures(self) -> dict[str, float]:
        """mIoU (over classes that are there or were said), the share of right pixels, and that
        share averaged over classes, from 0 to 1."""
        there, right = self.there.sum(axis=0), self.right.sum(axis=0)
        return {
            "mIoU": _mean(self.iou()),
            "pixel_accuracy": float(right.sum() / max(there.sum(), 1)),
            "mean_accuracy": _mean(_ratio(right, there)),
        }


def _total(counts: Array, times: Array | None) -> Array:
    return counts.sum(axis=0) if times is None else times @ counts


def _ratio(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)


@dataclass(frozen=True)
class ClassFigures:
    """One class: ``accuracy`` is the share of its pixels that are named so."""

    name: str
    pixels: int
    iou: float | None
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class Worst:
    """An image, the share of its pixels that are right, and both masks: positions in the
    set's classes, -1 of none."""

    path: str
    accuracy: float
    there: Array = field(repr=False)
    said: Array = field(repr=False)


@dataclass(frozen=True)
class Evaluation:
    """``figures`` are from 0 to 1: mIoU (over classes that are there or were said), the share
    of right pixels, and that share averaged over classes."""

    name: str
    images: int
    figures: Mapping[str, float]
    per_class: tuple[ClassFigures, ...]
    worst: tuple[Worst, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "images": self.images,
            **self.figures,
            "per_class": [asdict(each) for each in self.per_class],
            "worst": [{"path": w.path, "accuracy": w.accuracy} for w in self.worst],
        }


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images: how much larger the mIoU of the second is, and the 95 %
    interval of that over images drawn again."""

    first: str
    second: str
    difference: float
    low: float
    high: float


def evaluate(
    segmenters: Sequence[Segmenter],
    given: MaskSet,
    on_error: OnError,
    show: Callable[[Sequence[MaskedImage]], Iterable[MaskedImage]] = iter,
) -> tuple[list[Evaluation], list[Comparison]]:
    """Each of ``segmenters`` on the same images, and all others compared with the first.

    Images that cannot be used are left out, and given to ``on_error``; ``show`` may tell how
    far it is. Raises ConfigError for one that lacks a class of the set, ImageError if no image
    can be used.
    """
    names = [normalize("NFC", n) for n in given.names or segmenters[0].classes]
    classes = [name for name in names if name]
    orders = [_order(each, classes) for each in segmenters]
    rows: list[list[tuple[Array, ...]]] = [[] for _ in segmenters]
    worst: list[Worst] = []
    for path, photo, there in _read(show(given.images), class_numbers(names), on_error):
        found = [o[s.find(photo)] for s, o in zip(segmenters, orders, strict=True)]
        worst = _with(worst, Worst(path, _accuracy(there, found[0]), there, found[0]))
        for row, said in zip(rows, found, strict=True):
            row.append(counted(there, said, len(classes)))
    if not rows[0]:
        raise ImageError("none of the images can be used")
    counts = [Counts(*map(np.stack, zip(*row, strict=True))) for row in rows]
    evaluations = [
        _evaluation(each.name, classes, count, worst if each is segmenters[0] else ())
        for each, count in zip(segmenters, counts, strict=True)
    ]
    pairs = zip(segmenters[1:], counts[1:], strict=True)
    first = segmenters[0].name
    return evaluations, [_compared(first, s.name, counts[0], count) for s, count in pairs]


def _read(
    images: Iterable[MaskedImage], numbers: Array, on_error: OnError
) -> Iterator[tuple[str, Image.Image, Array]]:
    """The path of each image that can be used, its photo, and its mask as positions in the
    set's classes."""
    for position, image in enumerate(images):
        try:
            photo = as_rgb(image.path)
            there = image.classes(numbers, photo.size)
        except ImageError as error:
            on_error(position, error)
            continue
        yield image.path, photo, there


def _order(segmenter: Segmenter, classes: Sequence[str]) -> Array:
    """(classes of the model,) positions in the set's classes, -1 of those it lacks."""
    known = [normalize("NFC", name) for name in segmenter.classes]
    if unknown := [name for name in classes if name not in known]:
        raise ConfigError(
            f"{segmenter.name} has no class {_some(unknown)}; it has {_some(known)}"
        )
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(name, -1) for name in known])


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:8])) + (", …" if len(names) > 8 else "")


def counted(there: Array, said: Array, classes: int) -> tuple[Array, Array, Array]:
    """Pixels of each class that are there, that were said, and that were both: of two arrays of
    classes, -1 where there or said is none of them."""
    counts = there >= 0
    a, b = there[counts], said[counts]
    found = (a, b[b >= 0], a[a == b])
    there, said, right = (np.bincount(each, minlength=classes) for each in found)
    return there, said, right


def _accuracy(there: Array, said: Array) -> float:
    counts = there >= 0
    return float((there == said)[counts].mean()) if counts.any() else 1.0


def _with(worst: list[Worst], another: Worst) -> list[Worst]:
    return sorted([*worst, another], key=lambda each: each.accuracy)[:WORST]


def _evaluation(
    name: str, classes: Sequence[str], counts: Counts, worst: Sequence[Worst]
) -> Evaluation:
    there, right, iou = counts.there.sum(axis=0), counts.right.sum(axis=0), counts.iou()
    accuracy = _ratio(right, there)
    per_class = (
        ClassFigures(n, int(pixels), _known(i), _known(a))
        for n, pixels, i, a in zip(classes, there, iou, accuracy, strict=True)
    )
    mistaken = tuple(each for each in worst if each.accuracy < 1)
    return Evaluation(name, len(counts.there), counts.figures, tuple(per_class), mistaken)


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else 0.0


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _compared(first: str, second: str, a: Counts, b: Counts) -> Comparison:
    """With the same images drawn for both (a bootstrap)."""
    images = len(a.there)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(images, np.full(images, 1 / images), DRAWS)
    found = [_mean(b.iou(times)) - _mean(a.iou(times)) for times in drawn]
    low, high = np.percentile(found, [2.5, 97.5])
    return Comparison(first, second, _mean(b.iou()) - _mean(a.iou()), float(low), float(high))
