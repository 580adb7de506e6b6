"""An evaluation of masks as one HTML file that loads nothing: ``report.html.jinja``."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ImageError
from ...image.open import open_image
from ...pages import template
from ...weights.output import replacing
from ..draw import draw_mask
from .evaluate import Comparison, Evaluation, Worst

if TYPE_CHECKING:
    from jinja2 import Template

LONGEST = 300  # pixels of the longer side of images


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
    first = evaluations[0]
    return _template().render(
        evaluations=evaluations,
        comparisons=comparisons,
        drawings={w.path: _drawings(w, len(first.per_class)) for w in first.worst},
    )


@cache
def _template() -> Template:
    return template(
        Path(__file__).with_name("report.html.jinja"),
        short=lambda text: text[-48:],
        signed=lambda value: f"{value:+.3f}",
    )


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
        data = io.BytesIO()
        image.save(data, "JPEG", quality=80)
        found.append(f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}")
    return found
