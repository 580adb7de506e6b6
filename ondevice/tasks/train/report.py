"""An evaluation as one HTML file that loads nothing: ``report.html.jinja``, filled in."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ImageError
from ...image.open import open_image
from ...pages import template
from ...weights.output import replacing
from .evaluate import Comparison, Evaluation

if TYPE_CHECKING:
    from jinja2 import Template

THUMBNAIL = 128  # pixels of the longer side
MANY = 60  # classes, of which a confusion is too wide to be read


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
    """The page, with thumbnails of the worst images of the first model."""
    return _template().render(
        evaluations=evaluations,
        comparisons=comparisons,
        thumbnails={mistake.path: _thumbnail(mistake.path) for mistake in evaluations[0].worst},
        many=MANY,
    )


@cache
def _template() -> Template:
    return template(
        Path(__file__).with_name("report.html.jinja"), short=lambda text: text[-48:]
    )


def _thumbnail(path: str) -> str:
    """A small JPEG as a data URL; "" if the image cannot be read any more."""
    try:
        image = open_image(path)
    except ImageError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
