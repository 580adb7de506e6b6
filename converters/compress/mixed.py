"""A format for each layer: the best that fits into a size, or the smallest that is good enough.

Each layer's formats are points of size and cost; on their lower convex hull, the steps with
the most saved for a byte are taken first. That is optimal but for the last step (Everett,
"Generalized Lagrange multiplier method", 1963), as in Dong et al., "HAWQ-V2", 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ondevice.errors import ConfigError

from ..graph.graph import Array, Graph
from .apply import LEAST, remembered, weights
from .calibrate import Calibration
from .forms import Form
from .recipe import CompressionRecipe, Rule
from .rounding import Statistics, Weight
from .sensitivity import cost, output_gradients
from .storage import Level, Storage

Format = tuple[str, tuple[tuple[str, Any], ...]]  # a method and its options


def formats(storage: Storage) -> list[Format]:
    """What a layer may become, by what can be held."""
    bits = (2, 3, 4, 6, 8) if storage.holds(Level.BLOCKS) else (2, 4, 6, 8)
    palettes: list[Format] = [("palettize", (("bits", b),)) for b in bits]
    return [*palettes, ("quantize", (("bits", 8),))]


@dataclass(frozen=True)
class Choice:
    """One format of one weight: bytes, and what it costs at the output."""

    path: str
    format: Format
    bytes: float
    cost: float


@dataclass(frozen=True)
class Point:
    """One assignment on the front: a rule for each weight."""

    bytes: float  # of the weights
    cost: float
    choices: tuple[Choice, ...]
    agreement: float | None = None

    @property
    def recipe(self) -> CompressionRecipe:
        """The rules that make it."""
        rules = (Rule(c.path, c.format[0], **dict(c.format[1])) for c in self.choices)
        return CompressionRecipe((*rules, Rule("*", "quantize", bits=8)), name="mixed")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "weight_bytes": round(self.bytes),
            "cost": self.cost,
            "agreement": self.agreement,
            "recipe": self.recipe.to_dict()["rules"],
        }


def candidates(
    graph: Graph,
    calibration: Calibration,
    statistics: Mapping[str, Statistics],
    *,
    storage: Storage,
    dtype: Any,
    known: dict[Any, Form | None],
) -> list[list[Choice]]:
    """For each weight all its formats, on the lower convex hull, the smallest first."""
    gradients = output_gradients(calibration)
    found = []
    for weight in weights(graph, dtype, statistics=statistics):
        if weight.statistics is not None and weight.value.size >= LEAST:
            gradient = gradients[weight.path]
            options = [_choice(weight, f, gradient, known) for f in formats(storage)]
            found.append(_hull(options))
    return found


def _choice(
    weight: Weight, given: Format, gradient: Array, known: dict[Any, Form | None]
) -> Choice:
    form = remembered(known, weight, given[0], dict(given[1]))
    assert form is not None
    assert weight.statistics is not None
    error = form.dense().astype(np.float64) - weight.value
    size = form.stored_bits / 8
    return Choice(weight.path, given, size, cost(error, gradient, weight.statistics))


def _hull(choices: Sequence[Choice]) -> list[Choice]:
    """Those that no mixture of two others beats, by size."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.bytes, c.cost)):
        if kept and choice.cost >= kept[-1].cost:
            continue
        while len(kept) > 1 and _gain(kept[-2], kept[-1]) <= _gain(kept[-1], choice):
            kept.pop()
        kept.append(choice)
    return kept


def _gain(a: Choice, b: Choice) -> float:
    """What a byte saves between two choices."""
    return (a.cost - b.cost) / max(b.bytes - a.bytes, 1e-9)


def front(options: Sequence[Sequence[Choice]]) -> list[Point]:
    """Every assignment from the smallest to the best, one step apart."""
    current = [list(o) for o in options]
    steps = [(_gain(a, b), i, b) for i, hull in enumerate(current) for a, b in pairwise(hull)]
    chosen = [hull[0] for hull in current]
    points = [_point(chosen)]
    for _, i, better in sorted(steps, key=lambda s: (-s[0], s[1], s[2].bytes)):
        chosen[i] = better
        points.append(_point(chosen))
    return points


def _point(chosen: Sequence[Choice]) -> Point:
    return Point(sum(c.bytes for c in chosen), sum(c.cost for c in chosen), tuple(chosen))


def within(points: Sequence[Point], budget: float, overhead: float) -> Point:
    """The best assignment whose package has at most ``budget`` bytes. Raises ConfigError."""
    fitting = [p for p in points if p.bytes + overhead <= budget]
    if not fitting:
        least = points[0].bytes + overhead
        raise ConfigError(
            f"no format fits into {budget / 1e6:.3f} MB; the smallest is {least / 1e6:.3f} MB"
        )
    return fitting[-1]


def agreeing(
    points: Sequence[Point], wanted: float, measured: Callable[[Point], float]
) -> Point:
    """The smallest assignment that agrees often enough, by bisection. Raises ConfigError."""
    low, high = 0, len(points) - 1
    if (best := measured(points[high])) < wanted:
        raise ConfigError(
            f"no format agrees on {wanted:.1%} of the calibration images; the best {best:.1%}"
        )
    while low < high:
        middle = (low + high) // 2
        if measured(points[middle]) >= wanted:
            high = middle
        else:
            low = middle + 1
    return points[high]
