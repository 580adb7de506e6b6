"""Line plots as inline SVG, coloured by the style sheet around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 12, 28


@dataclass(frozen=True)
class Line:
    """One curve through (place, value) points, each with a title, one perhaps marked."""

    points: Sequence[tuple[int, float]]
    titles: Sequence[str]
    marked: int | None = None  # the index of the point to mark


def line_plot(lines: Sequence[Line], *, y_label: str, x_label: str, limit: float | None) -> str:
    """The curves, with a dashed line at ``limit``; places count from 0."""
    last = max(x for line in lines for x, _ in line.points)
    top = 20 * (max(y for line in lines for _, y in line.points) // 20 + 1)
    frame = _Frame(max(last, 1), top)
    body = [*_grid(frame), *_labels(frame, x_label, y_label, last + 1)]
    if limit is not None:
        y = frame.y(limit)
        body.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        body.append(
            f'<text class="limit-text" x="{LEFT + 6}" y="{y + 14}">gate {limit:g} dB</text>'
        )
    for i, line in enumerate(lines):
        body += _curve(frame, line, i)
    label = escape(f"{y_label} by {x_label}", quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(body)}</svg>"
    )


@dataclass(frozen=True)
class _Frame:
    last: int
    top: float

    def x(self, index: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * index / self.last, 1)

    def y(self, value: float) -> float:
        inside = HEIGHT - TOP - BOTTOM
        return round(TOP + inside * (1 - min(max(value / self.top, 0), 1)), 1)


def _grid(frame: _Frame) -> Iterator[str]:
    for value in range(0, int(frame.top) + 1, 20):
        y = frame.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{value}</text>'


def _labels(frame: _Frame, x_label: str, y_label: str, count: int) -> Iterator[str]:
    bottom = HEIGHT - 8
    yield f'<text x="{LEFT}" y="{bottom}">1</text>'
    yield (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    yield f'<text x="{WIDTH - RIGHT}" y="{bottom}" text-anchor="end">{count}</text>'
    yield f'<text x="{LEFT + 6}" y="{TOP + 14}">{escape(y_label)}</text>'


def _curve(frame: _Frame, line: Line, number: int) -> Iterator[str]:
    points = [(frame.x(place), frame.y(value)) for place, value in line.points]
    path = " ".join(f"{x},{y}" for x, y in points)
    yield f'<g class="curve c{number}"><polyline points="{path}"/>'
    for i, ((x, y), title) in enumerate(zip(points, line.titles, strict=True)):
        yield _point(x, y, title, *(("mark", 6) if i == line.marked else ("dot", 2)))
    yield "</g>"
    if line.marked is not None:
        yield from _mark(*points[line.marked], line.titles[line.marked], number)


def _mark(x: float, y: float, title: str, number: int) -> Iterator[str]:
    """The title of a marked point, below all curves."""
    bottom = HEIGHT - BOTTOM - 8 - 16 * number
    anchor, shift = ("end", -6) if x > WIDTH / 2 else ("start", 6)
    yield f'<line class="lead" x1="{x}" x2="{x}" y1="{y + 6}" y2="{bottom}"/>'
    yield (
        f'<text class="mark-text" x="{x + shift}" y="{bottom}" text-anchor="{anchor}">'
        f"{escape(title)}</text>"
    )


def _point(x: float, y: float, title: str, kind: str, radius: int) -> str:
    return (
        f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius}">'
        f"<title>{escape(title)}</title></circle>"
    )
