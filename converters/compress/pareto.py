"""The front of a search, size against agreement: as rows, as JSON and as a plot."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .mixed import Point

_POINTS = 12
_WIDTH, _HEIGHT, _MARGIN = 640, 400, 56
_STYLE = (
    "text{font:12px sans-serif;fill:#333}line{stroke:#ddd}"
    "polyline{fill:none;stroke:#06c;stroke-width:2}circle{fill:#06c}circle.chosen{fill:#c30}"
)


@dataclass(frozen=True)
class Front:
    """Some points of a front, the smallest first; ``chosen`` became the package."""

    points: tuple[Point, ...]
    overhead: float  # bytes of a package beside its weights
    chosen: Point

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Megabytes, agreement, cost and formats of each point; the chosen one is marked."""
        for point in self.points:
            share = "-" if point.agreement is None else f"{point.agreement:.1%}"
            mark = "*" if point.choices == self.chosen.choices else " "
            size = f"{self._bytes(point) / 1e6:.3f}{mark}"
            yield size, share, f"{point.cost:.2e}", _formats(point)

    def to_dict(self) -> dict[str, Any]:
        return {
            "points": [p.to_dict() | {"bytes": round(self._bytes(p))} for p in self.points],
            "chosen": self.points.index(self.chosen),
        }

    def write(self, path: Path) -> None:
        """A plot (.svg), or all of it as JSON."""
        text = self.to_svg() if path.suffix == ".svg" else json.dumps(self.to_dict(), indent=2)
        path.write_text(text, encoding="utf-8")

    def to_svg(self) -> str:
        """Size from left to right; agreement, or how small the cost is, from below."""
        xs = [self._bytes(p) / 1e6 for p in self.points]
        if any(p.agreement is None for p in self.points):
            ys = [-math.log10(max(p.cost, 1e-12)) for p in self.points]
            label = "-log10 of the cost at the output"
        else:
            ys = [100 * (p.agreement or 0) for p in self.points]
            label = "agreement with the float model, %"
        dots = list(zip(_scaled(xs, _WIDTH), _scaled(ys, _HEIGHT, upwards=True), strict=True))
        body = [_text(_WIDTH / 2, _HEIGHT - 10, "package, MB"), _text(_WIDTH / 2, 20, label)]
        for x, y, size, value in _ends(dots, xs, ys):
            body += [_text(x, _HEIGHT - 30, f"{size:.2f}"), _text(26, y + 4, f"{value:.4g}")]
        body.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in dots)}"/>')
        for (x, y), point, row in zip(dots, self.points, self.rows(), strict=True):
            kind = ' class="chosen"' if point == self.chosen else ""
            title = f"<title>{' | '.join(row)}</title>"
            body.append(f'<circle{kind} cx="{x}" cy="{y}" r="5">{title}</circle>')
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
            f"<style>{_STYLE}</style>{''.join(body)}</svg>\n"
        )

    def _bytes(self, point: Point) -> float:
        return point.bytes + self.overhead


def make_front(
    points: Sequence[Point],
    chosen: Point,
    overhead: float,
    measured: Callable[[Point], float] | None,
) -> Front:
    """At most a dozen points, evenly along the front, and the chosen one, each measured."""
    last = len(points) - 1
    places = {round(i * last / (_POINTS - 1)) for i in range(_POINTS)}
    places.add(points.index(chosen))

    def with_agreement(point: Point) -> Point:
        return replace(point, agreement=measured(point)) if measured else point

    some = {place: with_agreement(points[place]) for place in sorted(places)}
    return Front(tuple(some.values()), overhead, some[points.index(chosen)])


def _formats(point: Point) -> str:
    """How many weights have which format, the most frequent first."""
    counts = Counter(f"{name} {dict(options)['bits']}" for name, options in _kinds(point))
    return ", ".join(f"{n} x {name}" for name, n in counts.most_common())


def _kinds(point: Point) -> Iterator[Any]:
    return (choice.format for choice in point.choices)


def _scaled(values: Sequence[float], length: int, *, upwards: bool = False) -> list[float]:
    low, high = min(values), max(values)
    room = length - 2 * _MARGIN
    places = [_MARGIN + room * (v - low) / ((high - low) or 1) for v in values]
    return [round(length - p if upwards else p, 1) for p in places]


def _ends(
    dots: Sequence[tuple[float, float]], xs: Sequence[float], ys: Sequence[float]
) -> Iterator[tuple[float, float, float, float]]:
    for i in (0, -1):
        yield (*dots[i], xs[i], ys[i])


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle">{text}</text>'
