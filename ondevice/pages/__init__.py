"""Reports: pages of HTML from one template, each a file that loads nothing, and plots."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .plot import (
    SMALL as SMALL,
    WIDE as WIDE,
    Axis as Axis,
    Curve as Curve,
    plot as plot,
    plot_style as plot_style,
)

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image

_HERE = Path(__file__).parent
_LONG = 160  # characters of a fact that are shown; a list of labels may be thousands


class Cell(NamedTuple):
    """A cell of a table with a class of the stylesheet: ok, bad, hit, miss or dim."""

    text: str
    kind: str


def template(path: Path, **filters: Callable[[Any], str]) -> Template:
    """A report's template, which extends ``base.html.jinja`` and has ``macros.html.jinja``.

    All that it shows is escaped, and a name that it lacks is an error. It has the filters
    ``percent``, ``megabytes`` and ``short`` beside the given ones.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([path.parent, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {"percent": percent, "megabytes": megabytes, "short": short}
    environment.filters |= {**own, **filters}
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style + plot_style())
    return environment.get_template(path.name)


def data_url(image: Image.Image) -> str:
    """An image that stands in the page itself, as JPEG."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def percent(share: float | None) -> str:
    """A share of 1 in percent; - where there is none."""
    return "-" if share is None else f"{share:.1%}"


def megabytes(size: int) -> str:
    """Bytes in megabytes."""
    return f"{size / 1e6:.2f} MB"


def short(text: object) -> str:
    """The beginning of what is long."""
    said = str(text)
    return said if len(said) <= _LONG else f"{said[:_LONG]} …"
