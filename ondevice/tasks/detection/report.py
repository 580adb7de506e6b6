"""An evaluation of detectors as one HTML file that loads nothing: ``report.html.jinja``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ImageError
from ...image.open import open_image
from ...pages import Axis, Curve, data_url, plot, template
from ...signature.decode import Detection
from ..draw import draw_boxes
from .average_precision import RECALL
from .evaluate import ClassFigures, Comparison, Evaluation, Mistakes

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image

LONGEST = 400  # pixels of the longer side of images
PLOTS = 24  # classes whose curves are drawn: those with the most objects
TICKS = [(0.0, "0"), (0.5, "0.5"), (1.0, "1")]


def to_html(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> str:
    """The page, with the worst images of the first model."""
    plots, names = list(_plots(evaluations)), [e.name for e in evaluations]
    titles = [f">{figure} of {name}" for name in names for figure in ("AP", "AP50")]
    return _template().render(
        evaluations=evaluations,
        header=("model", *(f">{name}" for name in evaluations[0].figures)),
        models=[(e.name, *map(_share, e.figures.values())) for e in evaluations],
        compared=list(map(_comparison_row, comparisons)),
        of_classes=("class", ">objects", *titles),
        classes=list(map(_class_row, zip(*(e.per_class for e in evaluations), strict=True))),
        plots=plots,
        keys=names if len(names) > 1 else [],
        more=sum(c.objects > 0 for c in evaluations[0].per_class) - len(plots),
        drawings={each.path: _drawing(each) for each in evaluations[0].worst},
    )


@cache
def _template() -> Template:
    return template(Path(__file__).with_name("report.html.jinja"), end=lambda text: text[-48:])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _comparison_row(c: Comparison) -> Sequence[object]:
    interval = f"{_signed(c.low)} to {_signed(c.high)}"
    return f"{c.first}, {c.second}", _signed(c.difference), interval


def _class_row(of_models: Sequence[ClassFigures]) -> Sequence[object]:
    """Of one class, what each model makes of it."""
    figures = (_share(value) for c in of_models for value in (c.AP, c.AP50))
    return of_models[0].name, of_models[0].objects, *figures


def _plots(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, str]]:
    """Classes with precision by recall, a curve a model."""
    rows = list(zip(*(e.per_class for e in evaluations), strict=True))
    rows = [row for row in rows if row[0].objects]
    for row in sorted(rows, key=lambda row: -row[0].objects)[:PLOTS]:
        curves = [
            Curve(
                list(zip(RECALL.tolist(), figures.precision, strict=True)),
                [f"{e.name}: precision {p:.3f}" for p in figures.precision],
                radius=3,
            )
            for e, figures in zip(evaluations, row, strict=True)
        ]
        yield (
            row[0].name,
            plot(curves, Axis("recall", 0, 1, TICKS[::2]), Axis("precision", 0, 1, TICKS)),
        )


def _drawing(mistakes: Mistakes) -> str:
    """A JPEG as a data URL, with what is there in white and what was found in colours; "" if
    the image cannot be read any more."""
    try:
        photo = open_image(mistakes.path)
    except ImageError:
        return ""
    scale = min(1, LONGEST / max(photo.size))
    small = photo.resize([max(1, round(side * scale)) for side in photo.size])
    image = draw_boxes(
        _outlined(small, _scaled(mistakes.objects, scale)), _scaled(mistakes.found, scale)
    )
    return data_url(image)


def _scaled(found: Sequence[Detection], scale: float) -> list[Detection]:
    return [
        Detection(d.label, d.score, d.index, tuple(v * scale for v in d.box))  # type: ignore[arg-type]
        for d in found
    ]


def _outlined(photo: Image.Image, objects: Sequence[Detection]) -> Image.Image:
    from PIL import ImageDraw

    image = photo.copy()
    pen = ImageDraw.Draw(image)
    for each in objects:
        x, y, width, height = each.box
        pen.rectangle((x - 2, y - 2, x + width + 2, y + height + 2), outline="black", width=5)
        pen.rectangle((x - 1, y - 1, x + width + 1, y + height + 1), outline="white", width=3)
    return image
