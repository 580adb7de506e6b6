"""What ``ondevice evaluate`` does with detectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError
from ._evaluated import (
    SPLITS,
    Evaluated,
    Opened,
    contract_input,
    evaluated,
    looking,
    print_differences,
    tell_split,
    without_seen,
)
from ._output import counted, print_table

if TYPE_CHECKING:
    from converters.program import Program

    from ..tasks.detection.coco import CocoSet
    from ..tasks.detection.evaluate import Comparison, Detector, Evaluation

BOXES, SCORES = "coordinates", "confidence"  # as packages call them


def evaluate_boxes(opened: Sequence[Opened], images: Path) -> Evaluated:
    """Average precision and recall by COCO's protocol, on a set in COCO's form."""
    from ..tasks.detection.evaluate import evaluate
    from ..tasks.detection.report import to_html

    detectors = [_detector(each) for each in opened]
    coco = without_seen(coco_set(images), opened)
    tell_other_classes(detectors, coco)
    measure = partial(evaluate, detectors, coco, show=looking)
    return evaluated(measure, len(coco.images), _print, to_html)


def coco_set(images: Path) -> CocoSet:
    """The set, of several splits test or else val. Raises ConfigError."""
    from ..tasks.detection.coco import read_coco
    from ..tasks.detection.coco_files import annotation_files

    files = annotation_files(images)
    split = next(name for name in SPLITS if name in files)
    tell_split(images, split)
    coco = read_coco(files[split])
    for note in coco.notes:
        click.echo(f"warning: {coco.path}: {note}", err=True)
    return coco


def tell_other_classes(detectors: Sequence[Detector], coco: CocoSet) -> None:
    for detector in detectors:
        others, count = set(detector.classes) - set(coco.classes), len(detector.classes)
        if others:
            click.echo(
                f"{detector.name}: {len(others):,} of its {count:,} classes are not in the "
                "set: what it finds of those is not counted",
                err=True,
            )


def _detector(given: Opened) -> Detector:
    from ..tasks.detection.evaluate import model_detector

    if given.package is not None:
        return package_detector(given.package, given.name)
    return model_detector(given.model, given.name)


def package_detector(package: Program, name: str) -> Detector:
    """A package, run one image at a time. Raises ConfigError if it finds no boxes with classes
    that have names."""
    import numpy as np

    from ..signature.decode import Frame, in_pixels, suppressed
    from ..tasks.detection.evaluate import Detector

    if not {BOXES, SCORES} <= {*package.outputs} or not package.labels:
        gives = ", ".join(package.outputs)
        raise ConfigError(
            f"{name} finds no boxes with names: it gives {gives}; expected {SCORES} and {BOXES}"
        )
    image, contract = contract_input(package)

    def find(photo: Any) -> tuple[Any, Any]:
        found = package.predict({image: package.resize_and_crop(photo)})
        boxes = np.asarray(found[BOXES]).reshape(-1, 4)
        scores = np.asarray(found[SCORES])
        scores = scores.reshape(-1, scores.shape[-1])[:, : len(package.labels)]
        boxes = in_pixels(boxes, Frame.of(photo.size, contract))
        return boxes, suppressed(boxes, scores, package.max_overlap)

    return Detector(name, package.labels, find)


def _print(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> None:
    first = evaluations[0]
    images, objects = counted(first.images, "image"), counted(first.objects, "object")
    click.echo(f"{images} with {objects}")
    print_table(
        ("model", *(f">{name}" for name in first.figures)),
        ((e.name, *map(_share, e.figures.values())) for e in evaluations),
    )
    click.echo()
    print_table(
        ("class", ">objects", *(f">AP {e.name}" for e in evaluations), ">AP50"),
        (
            (
                c.name,
                c.objects,
                *(_share(e.per_class[i].AP) for e in evaluations),
                _share(c.AP50),
            )
            for i, c in enumerate(first.per_class)
            if c.objects
        ),
    )
    print_differences("AP", comparisons)


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
