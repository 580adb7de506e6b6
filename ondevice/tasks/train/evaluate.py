"""How good a classifier is on a folder of images, and whether another one is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from unicodedata import normalize

import mlx.nn as nn
import numpy as np

from ...errors import ConfigError, ImageError, printable
from ...nn.fuse import fuse
from . import metrics
from .dataset import Sample
from .listing import list_images
from .loader import Loader
from .predict import predictions

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

BATCH = 32
OnError: TypeAlias = Callable[[int, ImageError], object]  # the position of an image, and why


@dataclass(frozen=True)
class Scorer:
    """Something that gives each class a score.

    ``scores(paths, on_error)`` are (N, classes) logits, or logarithms of probabilities, of
    those images that can be read, and their (N,) positions.
    """

    name: str
    classes: tuple[str, ...]
    scores: Callable[[Sequence[str], OnError], tuple[Array, Array]]


def model_scorer(model: nn.Module, name: str = "") -> Scorer:
    """A model in MLX, called ``name``. Raises ConfigError if it names no classes of images."""
    info = model.info
    classes = info.class_names
    if not classes or "head" not in model:
        lacks = "classes of whole images" if classes else "classes"
        raise ConfigError(f"{info.name} names no {lacks}, so none can be compared with folders")
    fused = fuse(model.eval())

    def scores(paths: Sequence[str], on_error: OnError) -> tuple[Array, Array]:
        samples = [Sample(path, 0) for path in paths]
        loader = Loader(samples, info.preprocess, batch_size=BATCH)
        try:
            found, positions = predictions(fused, loader, info.preprocess)
        finally:
            for position, problem in loader.failed.items():
                on_error(position, ImageError(problem))
        if info.config.num_classes == 1:
            found = np.concatenate([np.zeros_like(found), found], axis=1)
        return found, positions

    return Scorer(name or info.name, classes, scores)


def labelled_images(folder: Path, classes: Sequence[str]) -> tuple[list[Sample], str]:
    """The images of a folder by the index of their class, and the split that was taken.

    Of folders with splits it is "test", or "val" if there is none. Raises ConfigError for
    folders that are not called as one of the ``classes`` is.
    """
    rows = list_images(folder)
    splits = {row.split for row in rows}
    split = next((name for name in ("test", "val", "train") if name in splits), "")
    rows = [row for row in rows if row.split == split]
    index = {normalize("NFC", name): i for i, name in enumerate(classes)}
    labels = [normalize("NFC", row.label) for row in rows]
    if unknown := sorted({label for label in labels if label not in index}):
        known = ", ".join(map(printable, classes[:8])) + (", …" if len(classes) > 8 else "")
        raise ConfigError(
            f"{folder}: no class is called {', '.join(map(printable, unknown[:8]))}; the model "
            f"has {known}"
        )
    samples = [Sample(row.path, index[name]) for row, name in zip(rows, labels, strict=True)]
    return samples, split


@dataclass(frozen=True)
class ClassFigures:
    """One class: ``low`` to ``high`` is the 95 % interval of its recall, Wilson's."""

    name: str
    images: int
    recall: float
    low: float
    high: float
    precision: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model; shares are from 0 to 1. ``low`` to ``high`` is 95 % of top-1.

    ``macro_f1`` is the mean over the classes that have images. ``confusion`` has a row for
    what an image shows and a column for what was said.
    """

    name: str
    classes: tuple[str, ...]
    images: int
    top1: float
    low: float
    high: float
    top5: float | None  # None of five classes or fewer, where it says nothing
    macro_f1: float
    calibration_error: float
    temperature: float
    per_class: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    worst: tuple[Mistake, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Mistake:
    """An image that was taken for another class, with the probability given to that."""

    path: str
    shown: str
    said: str
    probability: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images; ``p`` is McNemar's exact test."""

    first: str
    second: str
    agreement: float
    only_first_right: int
    only_second_right: int
    p: float


WORST = 24  # mistakes that are kept


def evaluate(
    scorers: Sequence[Scorer], samples: Sequence[Sample], on_error: OnError
) -> tuple[list[Evaluation], list[Comparison]]:
    """Each of ``scorers`` on the same images, and all others compared with the first.

    ``samples`` have the classes of the first. Images that one of them cannot read are left
    out of all. Raises ConfigError if classes differ, ImageError if no image can be read.
    """
    classes = scorers[0].classes
    paths = [sample.path for sample in samples]
    found = []
    for scorer in scorers:
        scores, positions = scorer.scores(paths, on_error)
        table = dict(zip(positions.tolist(), scores[:, _order(scorer, classes)], strict=True))
        found.append(table)
    usable = [i for i in range(len(samples)) if all(i in table for table in found)]
    if not usable:
        raise ImageError("none of the images can be used")
    used = [samples[i] for i in usable]
    logits = [np.stack([table[i] for i in usable]).astype(np.float64) for table in found]
    evaluations = [
        figures(scorer.name, classes, own, used)
        for scorer, own in zip(scorers, logits, strict=True)
    ]
    labels = np.array([sample.label for sample in used])
    said = [own.argmax(axis=-1) for own in logits]
    comparisons = [
        _compared(scorers[0].name, scorer.name, said[0], own, labels)
        for scorer, own in zip(scorers[1:], said[1:], strict=True)
    ]
    return evaluations, comparisons


def _order(scorer: Scorer, classes: Sequence[str]) -> list[int]:
    index = {name: i for i, name in enumerate(scorer.classes)}
    if index.keys() != set(classes):
        raise ConfigError(f"{scorer.name} has other classes than the first model")
    return [index[name] for name in classes]


def _compared(first: str, second: str, a: Array, b: Array, labels: Array) -> Comparison:
    return Comparison(
        first, second, float((a == b).mean()), *metrics.mcnemar(a == labels, b == labels)
    )


def figures(
    name: str, classes: Sequence[str], logits: Array, samples: Sequence[Sample]
) -> Evaluation:
    """All figures of (N, classes) logits for the N samples."""
    labels = np.array([sample.label for sample in samples])
    said = logits.argmax(axis=-1)
    table = metrics.confusion(said, labels, len(classes))
    right = int((said == labels).sum())
    per_class = _per_class(classes, table)
    with_images = [c.f1 for c in per_class if c.images]
    low, high = metrics.wilson(right, len(labels))
    return Evaluation(
        name,
        tuple(classes),
        len(labels),
        right / len(labels),
        low,
        high,
        metrics.top_k(logits, labels, 5) if len(classes) > 5 else None,
        float(np.mean(with_images)),
        metrics.calibration_error(logits, labels),
        metrics.fit_temperature(logits, labels),
        per_class,
        tuple(tuple(map(int, row)) for row in table),
        tuple(_mistakes(classes, logits, samples)),
    )


def _per_class(classes: Sequence[str], table: Array) -> tuple[ClassFigures, ...]:
    precision, recall, f1 = metrics.precision_recall_f1(table)
    counts = table.sum(axis=1).tolist()
    return tuple(
        ClassFigures(
            name,
            counts[i],
            float(recall[i]),
            *metrics.wilson(int(table[i, i]), counts[i]),
            float(precision[i]),
            float(f1[i]),
        )
        for i, name in enumerate(classes)
    )


def _mistakes(
    classes: Sequence[str], logits: Array, samples: Sequence[Sample]
) -> list[Mistake]:
    """The most confident ones first."""
    probabilities = np.exp(metrics.log_softmax(logits))
    said = logits.argmax(axis=-1).tolist()
    found = [
        Mistake(s.path, classes[s.label], classes[k], float(row[k]))
        for s, k, row in zip(samples, said, probabilities, strict=True)
        if k != s.label
    ]
    return sorted(found, key=lambda m: (-m.probability, m.path))[:WORST]
