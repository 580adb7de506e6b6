"""The front of a search, size against agreement: as rows, as JSON and as a plot."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ondevice.pages import WIDE, Axis, Curve, plot

from .mixed import Point

_POINTS = 12


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
        """Points from the smallest to the largest, for JSON; ``chosen`` is an index."""
        return {
            "points": [p.to_dict() | {"bytes": round(self._bytes(p))} for p in self.points],
            "chosen": self.points.index(self.chosen),
        }

    def write(self, path: Path) -> None:
        """A plot (.svg), or all of it as JSON."""
        svg = path.suffix == ".svg"
        text = self.to_svg() + "\n" if svg else json.dumps(self.to_dict(), indent=2)
        path.write_text(text, encoding="utf-8")

    def to_svg(self, size: tuple[int, int] = WIDE, *, as_file: bool = True) -> str:
        """Size from left to right; agreement, or how small the cost is, from below.

        ``size`` and ``as_file`` are those of ``ondevice.pages.plot``.
        """
        xs = [self._bytes(p) / 1e6 for p in self.points]
        if any(p.agreement is None for p in self.points):
            ys = [-math.log10(max(p.cost, 1e-12)) for p in self.points]
            label = "-log10 of the cost at the output"
        else:
            ys = [100 * (p.agreement or 0) for p in self.points]
            label = "agreement with the float model, %"
        curve = Curve(
            list(zip(xs, ys, strict=True)),
            [" | ".join(row) for row in self.rows()],
            self.points.index(self.chosen),
            radius=5,
        )
        axes = _axis("package, MB", xs, "{:.2f}"), _axis(label, ys, "{:.4g}")
        return plot([curve], *axes, size=size, as_file=as_file)

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
    indices = {round(i * last / (_POINTS - 1)) for i in range(_POINTS)}
    indices.add(points.index(chosen))

    def with_agreement(point: Point) -> Point:
        return replace(point, agreement=measured(point)) if measured else point

    some = {i: with_agreement(points[i]) for i in sorted(indices)}
    return Front(tuple(some.values()), overhead, some[points.index(chosen)])


def _formats(point: Point) -> str:
    """How many weights have which format, the most frequent first."""
    counts = Counter(f"{name} {dict(options)['bits']}" for name, options in _kinds(point))
    return ", ".join(f"{n} x {name}" for name, n in counts.most_common())


def _kinds(point: Point) -> Iterator[Any]:
    return (choice.format for choice in point.choices)


def _axis(label: str, values: Sequence[float], form: str) -> Axis:
    ends = min(values), max(values)
    return Axis(label, *ends, [(end, form.format(end)) for end in dict.fromkeys(ends)])
