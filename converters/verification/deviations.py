"""Where a package deviates from another, or from its model: value by value, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.graph import Array
from .metrics import EXACT, compare

if TYPE_CHECKING:
    from ..program import Operation, Program

# What rounding alone may leave of a value, in dB: an error above it needs no other cause.
ROUNDING = {"float32": 120.0, "float16": 70.0}
JUMP = 20.0  # dB, a factor of ten


@dataclass(frozen=True)
class Deviation:
    """One operation's result against the other package's: the PSNR of what it reads
    (the worst of it) and of what it gives."""

    name: str
    op: str
    before_db: float
    after_db: float

    def __str__(self) -> str:
        return f"{self.op} {self.name}: {self.before_db:.1f} -> {self.after_db:.1f} dB"


def deviations(
    package: Program, reference: Program | Mapping[str, Array], inputs: Mapping[str, Any]
) -> tuple[Deviation, ...]:
    """Every value that both have, in ``package``'s order.

    A ``reference`` that is not a package is a few values by name, in whatever layout.
    """
    makers = package.stored().producers
    known = dict.fromkeys(package.inputs, EXACT)
    if isinstance(reference, Mapping):
        both = _sorted_pairs(package, reference, inputs)
    else:
        both = pairs(package, reference, inputs, inputs)
    found = []
    for name, value, wanted in both:
        op = makers.get(name)
        before = _before(op, known)
        known[name] = before if wanted is None else compare(wanted, rescaled(value, wanted))
        if op is not None and wanted is not None:
            found.append(Deviation(name, op.type, before, known[name]))
    return tuple(found)


def _before(op: Operation | None, known: Mapping[str, float]) -> float:
    read = op.reads() if op else ()
    return min((known[n] for n in read if n in known), default=EXACT)


def pairs(
    package: Program,
    other: Program,
    inputs: Mapping[str, Any],
    other_inputs: Mapping[str, Any],
) -> Iterator[tuple[str, Array, Array | None]]:
    """Each value of ``package`` with the other's of that name and shape, None if it has none.

    Both are run side by side, so that only values waiting for their partner are kept.
    """
    names = dict(package.stored().shapes.items() & other.stored().shapes.items())
    theirs = other.walk(other_inputs)
    waiting: dict[str, Array] = {}
    for name, value in package.walk(inputs):
        while name in names and name not in waiting:
            found = next(theirs, None)
            if found is None:
                break
            if found[0] in names:
                waiting[found[0]] = found[1]
        yield name, value, waiting.pop(name, None)


def _sorted_pairs(
    package: Program, reference: Mapping[str, Array], inputs: Mapping[str, Any]
) -> Iterator[tuple[str, Array, Array | None]]:
    """As ``pairs``, both sides in order of size: channels-first or last is then the same."""
    for name, value in package.walk(inputs):
        wanted = reference.get(name)
        if wanted is None or wanted.size != value.size:
            yield name, value, None
        else:
            yield name, np.sort(value, axis=None), np.sort(wanted, axis=None)


def rescaled(value: Array, wanted: Array) -> Array:
    """``value`` times the power of two that it was divided by to stay in range, if any."""
    largest, stored = np.abs(wanted).max(initial=0), np.abs(value).max(initial=0)
    if not (np.isfinite(largest) and np.isfinite(stored) and largest and stored):
        return value
    power = np.log2(float(largest) / float(stored))
    whole = round(power)
    return value * 2.0**whole if whole and abs(power - whole) < 0.01 else value


def first_jump(found: Sequence[Deviation], precision: str) -> Deviation | None:
    """The first operation that adds a tenfold error, or else the one that adds most.

    Error within what rounding explains does not count, or the first rounding of exact
    input would be the culprit of everything.
    """
    ceiling = ROUNDING[precision]

    def drop(d: Deviation) -> float:
        return min(d.before_db, ceiling) - d.after_db

    jumps = (d for d in found if drop(d) >= JUMP)
    return next(jumps, max(found, key=drop, default=None))
