"""An evaluation as one HTML file that loads nothing: ``report.html.jinja``, filled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ImageError
from ...image.open import open_image
from ...pages import Cell, data_url, percent, template
from .evaluate import ClassFigures, Comparison, Evaluation

if TYPE_CHECKING:
    from jinja2 import Template

THUMBNAIL = 128  # pixels of the longer side
MANY = 60  # classes, of which a confusion is too wide to be read


def to_html(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> str:
    """The page, with thumbnails of the worst images of the first model."""
    return _template().render(
        evaluations=evaluations,
        models=list(map(_model_row, evaluations)),
        compared=list(map(_comparison_row, comparisons)),
        classes=[list(map(_class_row, e.per_class)) for e in evaluations],
        headers=[("shown", *(f">{name}" for name in e.classes)) for e in evaluations],
        confusion=[list(_confusion(e)) for e in evaluations],
        thumbnails={mistake.path: _thumbnail(mistake.path) for mistake in evaluations[0].worst},
        many=MANY,
    )


@cache
def _template() -> Template:
    return template(Path(__file__).with_name("report.html.jinja"), end=lambda text: text[-48:])


def _interval(low: float, high: float) -> str:
    return f"{percent(low)} to {percent(high)}"


def _model_row(e: Evaluation) -> Sequence[object]:
    figures = (f"{e.macro_f1:.3f}", f"{e.calibration_error:.3f}", f"{e.temperature:.2f}")
    shares = percent(e.top1), _interval(e.low, e.high), percent(e.top5)
    return e.name, e.images, *shares, *figures


def _comparison_row(c: Comparison) -> Sequence[object]:
    only = c.only_first_right, c.only_second_right
    return f"{c.first}, {c.second}", percent(c.agreement), *only, f"{c.p:.3g}"


def _class_row(c: ClassFigures) -> Sequence[object]:
    recall = percent(c.recall), _interval(c.low, c.high)
    return c.name, c.images, *recall, percent(c.precision), f"{c.f1:.3f}"


def _confusion(e: Evaluation) -> Iterator[Sequence[object]]:
    """A row for each class that images show, its counts in colour."""
    for shown, row in enumerate(e.confusion):
        kinds = ("hit" if said == shown else "miss" for said in range(len(row)))
        cells = (Cell(str(n), kind if n else "") for n, kind in zip(row, kinds, strict=True))
        yield e.classes[shown], *cells


def _thumbnail(path: str) -> str:
    """A small JPEG as a data URL; "" if the image cannot be read any more."""
    try:
        image = open_image(path)
    except ImageError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_url(image)
