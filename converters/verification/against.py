"""One package beside another of the same model: two runtimes, value by value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ondevice.errors import ConfigError

from ..graph.graph import Array
from .deviations import pairs, rescaled

if TYPE_CHECKING:
    from ..program import Program

# The root mean square difference over the value's standard deviation. Two runtimes sum in
# orders of their own, and in half precision a rounding that falls the other way is a whole
# step: on the shipped models that leaves 3e-6, 0.02, and 0.15 where activations are rounded.
TOLERANCE = {"float32": 1e-4, "float16": 0.05, "rounded": 0.3}


@dataclass(frozen=True)
class Agreement:
    """What two packages made of one input: of how many values of one name and shape, the
    ``worst`` of them and its error, and the first operation whose result is off by more than
    ``tolerance``, with its error, if any is."""

    package: str
    values: int
    tolerance: float
    worst: str
    worst_error: float
    first: str = ""
    first_error: float = 0.0

    @property
    def failures(self) -> list[str]:
        """What keeps the packages from agreeing, in words."""
        if not self.first:
            return []
        return [
            f"against {self.package}: {self.first} is the first to differ, by "
            f"{self.first_error:.1e} > {self.tolerance:g} of its standard deviation"
        ]

    def __str__(self) -> str:
        return (
            f"against {self.package}: {self.values} values agree within "
            f"{self.worst_error:.1e} of their standard deviation (worst: {self.worst})"
        )


def agreement(package: Program, other: Program, given: Sequence[Array]) -> Agreement:
    """Run both on the same input. Raises ConfigError if no value is to be compared."""
    if len(package.inputs) != len(other.inputs):
        raise ConfigError(
            f"{package.path} takes {', '.join(package.inputs)}; {other.path} takes "
            f"{', '.join(other.inputs) or 'nothing'}"
        )
    kind = max((_kind(package), _kind(other)), key=lambda kind: TOLERANCE[kind])
    tolerance, makers = TOLERANCE[kind], package.stored().producers
    errors: dict[str, float] = {}
    for name, ours, theirs in _values(package, other, given):
        title = f"{makers[name].type} {name}" if name in makers else name
        errors[title] = error(ours, theirs)
    if not errors:
        raise ConfigError(
            f"{package.path} and {other.path} have no value of one name and shape"
        )
    worst = max(errors, key=lambda name: errors[name])
    first = next((name for name in errors if not errors[name] <= tolerance), "")
    return Agreement(
        package=other.path.name,
        values=len(errors),
        tolerance=tolerance,
        worst=worst,
        worst_error=errors[worst],
        first=first,
        first_error=errors.get(first, 0.0),
    )


def _kind(package: Program) -> str:
    """How a package rounds what it computes."""
    if package.precision == "float32":
        return "float32"
    return "rounded" if "quantize" in package.operations else "float16"


def _values(
    package: Program, other: Program, given: Sequence[Array]
) -> Iterator[tuple[str, Array, Array]]:
    """Inner values in order, then the outputs, of one name and shape."""
    ours, theirs = (p.named(given) for p in (package, other))
    seen = set()
    for name, value, wanted in pairs(package, other, ours, theirs):
        if wanted is not None:
            seen.add(name)
            yield name, value, wanted
    outputs = package.predict({**ours, **package.keep_all})
    wanted_outputs = other.predict({**theirs, **other.keep_all})
    for name in package.arrays:
        both = name in other.arrays and name not in seen
        if both and outputs[name].shape == wanted_outputs[name].shape:
            yield name, outputs[name], wanted_outputs[name]


def error(ours: Array, theirs: Array) -> float:
    """The root mean square difference over the standard deviation, infinite for what is finite
    on one side only. What hardly varies, whose deviation would be that of its last bits, is
    measured by a tenth of its root mean square."""
    a, b = rescaled(ours, theirs).astype(np.float64), theirs.astype(np.float64)
    known = np.isfinite(b)
    if not (np.isfinite(a) == known).all():
        return float("inf")
    a, b = a[known], b[known]
    if (a == b).all():
        return 0.0
    found, size = (np.sqrt(np.square(x).mean()) for x in (a - b, b))
    return float(found / max(b.std(), 0.1 * size, np.finfo(np.float32).tiny))
