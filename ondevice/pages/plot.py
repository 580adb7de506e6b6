"""Line plots as SVG, in a page or as files of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

WIDE = (960, 320)  # of a plot across a page, in units of the drawing
SMALL = (480, 240)  # whose text can be read on a phone
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 30, 28
MAX_LABEL = 90  # characters of a marked point's title that are shown in a wide plot


@cache
def plot_style() -> str:
    """The look of plots: its colours are those of the page, or dark ones on white."""
    return Path(__file__).with_name("plot.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``; ``ticks`` are values, each with its text."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1; values beyond the ends lie at the ends."""
        return min(max((value - self.low) / ((self.high - self.low) or 1), 0), 1)


@dataclass(frozen=True)
class Curve:
    """A line through (x, y) points, each with a title, one of them perhaps marked.

    ``names`` are written beside the points; without ``line`` there are only these.
    """

    points: Sequence[tuple[float, float]]
    titles: Sequence[str]
    marked: int | None = None  # the index of the point to mark
    radius: int = 2  # of a point
    names: Sequence[str] = ()
    line: bool = True


def plot(
    curves: Sequence[Curve],
    x: Axis,
    y: Axis,
    *,
    limit: tuple[float, str] | None = None,
    size: tuple[int, int] = WIDE,
    as_file: bool = False,
) -> str:
    """The curves as an SVG element; ``limit`` is a dashed line at a value, with a text.

    A page has ``plot_style()`` in its stylesheet; a plot ``as_file`` has it inside. Every text
    is escaped.
    """
    frame = _Frame(x, y, *size)
    body = [element("style", plot_style())] if as_file else []
    body += [*_y_axis(frame), *_x_axis(frame)]
    if limit is not None:
        at = frame.y(limit[0])
        body.append(frame.horizontal("limit", at))
        body.append(_text(limit[1], LEFT + 6, at + 14, kind="limit-text"))
    for i, curve in enumerate(curves):
        body += _curve(frame, curve, i)
    return element(
        "svg",
        *body,
        xmlns="http://www.w3.org/2000/svg" if as_file else None,
        viewBox=f"0 0 {frame.width} {frame.height}",
        role="img",
        aria_label=f"{y.label} by {x.label}",
    )


@dataclass(frozen=True)
class _Frame:
    """Where values lie in the plot, in pixels."""

    x_axis: Axis
    y_axis: Axis
    width: int
    height: int

    def x(self, value: float) -> float:
        return round(LEFT + (self.width - LEFT - RIGHT) * self.x_axis.share(value), 1)

    def y(self, value: float) -> float:
        return round(TOP + (self.height - TOP - BOTTOM) * (1 - self.y_axis.share(value)), 1)

    def horizontal(self, kind: str, y: float) -> str:
        """A line across the plot."""
        return element("line", class_=kind, x1=LEFT, x2=self.width - RIGHT, y1=y, y2=y)


def _y_axis(frame: _Frame) -> Iterator[str]:
    for value, text in frame.y_axis.ticks:
        at = frame.y(value)
        yield frame.horizontal("grid", at)
        yield _text(text, LEFT - 8, at + 4, "end")
    yield _text(frame.y_axis.label, LEFT, TOP - 14)


def _x_axis(frame: _Frame) -> Iterator[str]:
    bottom, right = frame.height - 8, frame.width - RIGHT
    for value, text in frame.x_axis.ticks:
        at = frame.x(value)
        anchor = "start" if at == LEFT else "end" if at == right else "middle"
        yield _text(text, at, bottom, anchor)
    yield _text(frame.x_axis.label, (LEFT + right) / 2, bottom, "middle")


def _curve(frame: _Frame, curve: Curve, index: int) -> Iterator[str]:
    points = [(frame.x(x), frame.y(y)) for x, y in curve.points]
    dots = [
        element("circle", element("title", escape(title)), class_=kind, cx=x, cy=y, r=radius)
        for i, ((x, y), title) in enumerate(zip(points, curve.titles, strict=True))
        for kind, radius in [("mark", 6) if i == curve.marked else ("dot", curve.radius)]
    ]
    path = " ".join(f"{x},{y}" for x, y in points)
    line = [element("polyline", points=path)] if curve.line else []
    names = [
        _name(frame, point, name, above=i % 2 == 0)
        for i, (point, name) in enumerate(zip(points, curve.names, strict=False))
    ]
    yield element("g", *line, *dots, *names, class_=f"curve c{index}")
    if curve.marked is not None:
        yield from _mark(frame, points[curve.marked], curve.titles[curve.marked], index)


def _name(frame: _Frame, point: tuple[float, float], name: str, *, above: bool) -> str:
    """What a point is called, on the side that has more room."""
    x, y = point
    anchor, shift = ("end", -6) if x > frame.width / 2 else ("start", 6)
    return _text(name, x + shift, y - 5 if above else y + 14, anchor)


def _mark(frame: _Frame, point: tuple[float, float], title: str, index: int) -> Iterator[str]:
    """The title of a marked point, below all curves."""
    x, y = point
    bottom = frame.height - BOTTOM - 8 - 16 * index
    anchor, shift = ("end", -6) if x > frame.width / 2 else ("start", 6)
    most = MAX_LABEL * frame.width // WIDE[0]
    shown = title if len(title) <= most else f"{title[:most]} …"
    yield element("line", class_="lead", x1=x, x2=x, y1=y + 6, y2=bottom)
    yield _text(shown, x + shift, bottom, anchor, kind="mark-text")


def _text(text: str, x: float, y: float, anchor: str = "start", *, kind: str = "") -> str:
    return element("text", escape(text), class_=kind or None, x=x, y=y, text_anchor=anchor)


def text(said: str) -> str:
    """A text as markup."""
    return escape(said)


def element(name: str, *inside: str, **attributes: object) -> str:
    """An element of SVG. ``inside`` is markup; attributes are escaped, and left out if None."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{''.join(inside)}</{name}>"
