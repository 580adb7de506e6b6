"""An evaluation of detectors as one HTML file that loads nothing: ``report.html.jinja``."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ImageError
from ...image.open import open_image
from ...pages import Axis, Curve, plot, template
from ...signature.decode import Detection
from ...weights.output import replacing
from ..draw import draw_boxes
from .average_precision import RECALL
from .evaluate import Comparison, Evaluation, Mistakes

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image

LONGEST = 400  # pixels of the longer side of images
PLOTS = 24  # classes whose curves are drawn: those with the most objects
TICKS = [(0.0, "0"), (0.5, "0.5"), (1.0, "1")]


def write_report(
    evaluations: Sequence[Evaluation],
    comparisons: Sequence[Comparison],
    path: Path,
    *,
    force: bool = False,
) -> Path:
    """Write the page to ``path``, whole or not at all. Raises OutputError."""
    with replacing(path, force=force) as partial:
        partial.write_text(to_html(evaluations, comparisons), encoding="utf-8")
    return path


def to_html(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> str:
    """The page, with the worst images of the first model."""
    plots = list(_plots(evaluations))
    return _template().render(
        evaluations=evaluations,
        comparisons=comparisons,
        plots=plots,
        more=sum(c.objects > 0 for c in evaluations[0].per_class) - len(plots),
        drawings={each.path: _drawing(each) for each in evaluations[0].worst},
    )


@cache
def _template() -> Template:
    return template(
        Path(__file__).with_name("report.html.jinja"),
        short=lambda text: text[-48:],
        share=lambda value: "-" if value is None else f"{value:.3f}",
        signed=lambda value: "-" if value is None else f"{value:+.3f}",
    )


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
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


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
