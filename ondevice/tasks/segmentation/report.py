"""An evaluation of masks as one HTML file that loads nothing: ``report.html.jinja``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ImageError
from ...image.open import open_image
from ...pages import data_url, percent, template
from ..draw import draw_mask
from .evaluate import ClassFigures, Comparison, Evaluation, Worst

if TYPE_CHECKING:
    from jinja2 import Template

LONGEST = 300  # pixels of the longer side of images


def to_html(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> str:
    """The page, with the worst images of the first model."""
    first = evaluations[0]
    return _template().render(
        evaluations=evaluations,
        models=[(e.name, e.images, *map(percent, e.figures.values())) for e in evaluations],
        compared=list(map(_comparison_row, comparisons)),
        of_classes=("class", ">pixels", *_titles(evaluations)),
        classes=list(map(_class_row, zip(*(e.per_class for e in evaluations), strict=True))),
        drawings={w.path: _drawings(w, len(first.per_class)) for w in first.worst},
    )


@cache
def _template() -> Template:
    return template(Path(__file__).with_name("report.html.jinja"), end=lambda text: text[-48:])


def _comparison_row(c: Comparison) -> Sequence[object]:
    return f"{c.first}, {c.second}", f"{c.difference:+.3f}", f"{c.low:+.3f} to {c.high:+.3f}"


def _titles(evaluations: Sequence[Evaluation]) -> list[str]:
    return [f">{what} of {e.name}" for e in evaluations for what in ("IoU", "right")]


def _class_row(of_models: Sequence[ClassFigures]) -> Sequence[object]:
    """Of one class, what each model makes of it."""
    figures = (percent(value) for c in of_models for value in (c.iou, c.accuracy))
    return of_models[0].name, of_models[0].pixels, *figures


def _drawings(worst: Worst, classes: int) -> list[str]:
    """What is there and what was said, over the photo, as data URLs of JPEG; nothing if the
    image cannot be read any more."""
    try:
        photo = open_image(worst.path)
    except ImageError:
        return []
    step = max(1, -(-max(photo.size) // LONGEST))
    found = []
    for mask in (worst.there, worst.said):
        small: Any = np.where(mask < 0, classes, mask)[::step, ::step]
        image = draw_mask(photo.resize(small.shape[::-1]), small, classes + 1)
        found.append(data_url(image))
    return found
