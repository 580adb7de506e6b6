"""Whether the weights that a compressed package stores are those of a model.

Compression changes every number, and with calibration a weight may move far along inputs
that hardly vary; but it stays like itself. One that was permuted, belongs to another layer or
was lost does not: its correlation with the model's falls to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import mlx.nn as nn
import numpy as np

from ..compress.apply import weights
from ..compress.rounding import Weight
from ..graph.graph import COMPUTED, Array
from ..graph.lowering import spelled
from .baselines import layout_of

if TYPE_CHECKING:
    from ..program import Program, Weight as Stored

# The least correlation. Floats are only rounded. On the shipped models 4 bits keep 0.93 and
# more with calibration, 3 bits 0.84, 2 bits 0.62, where two of five are zero 0.91; what was
# permuted has 0.2 to 0.5, a first layer with its colours swapped 0.8.
SAME, LIKE, LOOSE = 0.99, 0.88, 0.58
_SWEEPS = 4
_MOST = 4e4  # stands for infinity, as in masks
_NAMED = 64  # elements: smaller constants may be shared and lose their names


def weight_problems(model: nn.Module, package: Program) -> list[str]:
    """What is wrong with the stored weights, in words; nothing if none has a known name."""
    names = {w.path: (spelled(w.path), w.value) for w in _weights(model, package)}
    stored, used = package.weights, _used(package)
    if not any(name in stored for name, _ in names.values()):
        return []
    lost, changed = [], []
    for path, (name, value) in names.items():
        if name not in used:
            lost.append(path)
            continue
        least = _least(stored[name]) if name in stored else LOOSE
        found = likeness(value, package.array(name))
        if not found >= least:
            changed.append(f"{path} (correlation {found:.2f} < {least:g})")
    return [
        *_listed("the package does not use the model's weight", lost),
        *_listed("the package has a weight that is not like the model's:", changed),
    ]


def _weights(model: nn.Module, package: Program) -> Iterator[Weight]:
    """Those that keep their names in a package."""
    for weight in weights(layout_of(model, package)):
        if weight.value.size >= _NAMED and not weight.path.startswith(COMPUTED):
            yield weight


def _least(stored: Stored) -> float:
    """The least correlation that a weight may have, by how it is stored."""
    if stored.format.startswith("fp"):
        return SAME
    few = "sparse" in stored.format or 8 * stored.bytes < 3.9 * stored.size
    return LOOSE if few else LIKE


def _listed(what: str, found: list[str]) -> Iterator[str]:
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield f"{what} {', '.join(found[:3])}{more}"


def likeness(wanted: Array, stored: Array) -> float:
    """The correlation of two weights, whatever factor each output and input channel has."""
    if wanted.shape != stored.shape:
        return 0.0
    shape = (*wanted.shape[:2], -1)
    a, b = (np.clip(x.astype(np.float64), -_MOST, _MOST) for x in (wanted, stored))
    a, b = a.reshape(shape), b.reshape(shape)
    if not a.any():
        return float(not b.any())
    rows: Any = 1.0
    for _ in range(_SWEEPS):  # alternating least squares
        columns = _factors(b, a * rows, (0, 2))
        rows = _factors(b, a * columns, (1, 2))
    fitted = a * rows * columns
    power = float(np.square(fitted).sum() * np.square(b).sum())
    return float((fitted * b).sum() / power**0.5) if power else 0.0


def _factors(wanted: Array, given: Array, axes: tuple[int, int]) -> Array:
    """The positive factors that bring ``given`` nearest to ``wanted``."""
    power = np.square(given).sum(axis=axes, keepdims=True)
    product = (wanted * given).sum(axis=axes, keepdims=True)
    return np.maximum(product, 0) / np.where(power > 0, power, 1)


def _used(package: Program) -> set[str]:
    """The names of all values that an output is computed from."""
    producers = package.stored().producers
    found: set[str] = set()
    waiting = list(package.results())
    while waiting:
        name = waiting.pop()
        if name in producers and name not in found:
            found.add(name)
            waiting += producers[name].reads()
    return found
