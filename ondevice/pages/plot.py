"""Line plots as SVG, in a page or as files of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 12, 28
MAX_LABEL = 90  # characters of a marked point's title that are shown


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
    """A line through (x, y) points, each with a title, one of them perhaps marked."""

    points: Sequence[tuple[float, float]]
    titles: Sequence[str]
    marked: int | None = None  # the index of the point to mark
    radius: int = 2  # of a point


def plot(
    curves: Sequence[Curve],
    x: Axis,
    y: Axis,
    *,
    limit: tuple[float, str] | None = None,
    as_file: bool = False,
) -> str:
    """The curves as an SVG element; ``limit`` is a dashed line at a value, with a text.

    A page has ``plot_style()`` in its stylesheet; a plot ``as_file`` has it inside. Every text
    is escaped.
    """
    frame = _Frame(x, y)
    body = [element("style", plot_style())] if as_file else []
    body += [*_y_axis(frame), *_x_axis(frame)]
    if limit is not None:
        at = frame.y(limit[0])
        body.append(_horizontal("limit", at))
        body.append(_text(limit[1], LEFT + 6, at + 14, kind="limit-text"))
    for i, curve in enumerate(curves):
        body += _curve(frame, curve, i)
    return element(
        "svg",
        *body,
        xmlns="http://www.w3.org/2000/svg" if as_file else None,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{y.label} by {x.label}",
    )


@dataclass(frozen=True)
class _Frame:
    """Where values lie in the plot, in pixels."""

    x_axis: Axis
    y_axis: Axis

    def x(self, value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * self.x_axis.share(value), 1)

    def y(self, value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - self.y_axis.share(value)), 1)


def _y_axis(frame: _Frame) -> Iterator[str]:
    for value, text in frame.y_axis.ticks:
        at = frame.y(value)
        yield _horizontal("grid", at)
        yield _text(text, LEFT - 8, at + 4, "end")
    yield _text(frame.y_axis.label, LEFT + 6, TOP + 14)


def _x_axis(frame: _Frame) -> Iterator[str]:
    bottom = HEIGHT - 8
    for value, text in frame.x_axis.ticks:
        at = frame.x(value)
        anchor = "start" if at == LEFT else "end" if at == WIDTH - RIGHT else "middle"
        yield _text(text, at, bottom, anchor)
    yield _text(frame.x_axis.label, (LEFT + WIDTH - RIGHT) / 2, bottom, "middle")


def _curve(frame: _Frame, curve: Curve, index: int) -> Iterator[str]:
    points = [(frame.x(x), frame.y(y)) for x, y in curve.points]
    dots = [
        element("circle", element("title", escape(title)), class_=kind, cx=x, cy=y, r=radius)
        for i, ((x, y), title) in enumerate(zip(points, curve.titles, strict=True))
        for kind, radius in [("mark", 6) if i == curve.marked else ("dot", curve.radius)]
    ]
    line = element("polyline", points=" ".join(f"{x},{y}" for x, y in points))
    yield element("g", line, *dots, class_=f"curve c{index}")
    if curve.marked is not None:
        yield from _mark(*points[curve.marked], curve.titles[curve.marked], index)


def _mark(x: float, y: float, title: str, index: int) -> Iterator[str]:
    """The title of a marked point, below all curves."""
    bottom = HEIGHT - BOTTOM - 8 - 16 * index
    anchor, shift = ("end", -6) if x > WIDTH / 2 else ("start", 6)
    shown = title if len(title) <= MAX_LABEL else f"{title[:MAX_LABEL]} …"
    yield element("line", class_="lead", x1=x, x2=x, y1=y + 6, y2=bottom)
    yield _text(shown, x + shift, bottom, anchor, kind="mark-text")


def _horizontal(kind: str, y: float) -> str:
    return element("line", class_=kind, x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y)


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
