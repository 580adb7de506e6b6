"""What ``ondevice evaluate`` does with models that name the class of each pixel."""

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
from ._output import print_table

if TYPE_CHECKING:
    from converters.program import Program

    from ..tasks.segmentation.evaluate import Comparison, Evaluation, Segmenter

MASKS = ("mask", "mask_image")  # as packages call them


def evaluate_masks(opened: Sequence[Opened], images: Path) -> Evaluated:
    """Intersections over unions and right pixels, on images with masks."""
    from ..tasks.segmentation.evaluate import evaluate
    from ..tasks.segmentation.masks import read_masks
    from ..tasks.segmentation.report import to_html

    segmenters = [_segmenter(each) for each in opened]
    given, split = read_masks(images, SPLITS)
    tell_split(images, split)
    for note in given.notes:
        click.echo(f"warning: {note}", err=True)
    given = without_seen(given, opened)
    measure = partial(evaluate, segmenters, given, show=looking)
    return evaluated(measure, len(given.images), _print, to_html)


def _segmenter(given: Opened) -> Segmenter:
    from ..tasks.segmentation.evaluate import model_segmenter

    if given.package is not None:
        return _package_segmenter(given.package, given.name)
    return model_segmenter(given.model, given.name)


def _package_segmenter(package: Program, name: str) -> Segmenter:
    """A package, run one image at a time. Raises ConfigError if it gives no numbers of classes
    that have names."""
    import numpy as np

    from ..signature.decode import Frame
    from ..tasks.segmentation.evaluate import Segmenter

    output = next((each for each in MASKS if each in package.outputs), None)
    if output is None or not package.labels:
        gives = ", ".join(package.outputs)
        raise ConfigError(
            f"{name} gives no masks of classes with names: it gives {gives}; expected "
            f"{' or '.join(MASKS)}"
        )
    image, contract = contract_input(package)

    def find(photo: Any) -> Any:
        found = package.predict({image: package.resize_and_crop(photo)})[output]
        mask = np.rint(np.asarray(found)).astype(np.int64)
        mask = mask.reshape(mask.shape[-2:])
        return Frame.of(photo.size, contract).map(mask, smooth=False)

    return Segmenter(name, package.labels, find)


def _print(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> None:
    print_table(
        ("model", ">images", ">mIoU", ">right pixels", ">mean over classes"),
        ((e.name, e.images, *map(_percent, e.figures.values())) for e in evaluations),
    )
    click.echo()
    first = evaluations[0]
    print_table(
        ("class", ">pixels", *(f">IoU {e.name}" for e in evaluations), ">right"),
        (
            (
                c.name,
                c.pixels,
                *(_percent(e.per_class[i].iou) for e in evaluations),
                _percent(c.accuracy),
            )
            for i, c in enumerate(first.per_class)
            if c.pixels
        ),
    )
    print_differences("mIoU", comparisons)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"
