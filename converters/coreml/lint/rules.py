"""What a rule is: how it is registered, and what a check needs of an operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...program import Finding as Finding, Severity
from ..stored import StoredFunction, StoredOp

Check = Callable[[StoredOp, StoredFunction], str | None]


class Rule(NamedTuple):
    """A check under its name, with how grave it is and who says so."""

    name: str
    severity: Severity
    source: str
    check: Check

    @property
    def advice(self) -> str:
        """What to do: the check's docstring."""
        return (self.check.__doc__ or "").strip()


RULES: list[Rule] = []


def rule(severity: Severity, source: str) -> Callable[[Check], Check]:
    """Register a check of one operation: its complaint, or None."""

    def register(check: Check) -> Check:
        RULES.append(Rule(check.__name__.replace("_", "-"), severity, source, check))
        return check

    return register


def tensors(op: StoredOp, f: StoredFunction) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Type and shape of each output."""
    for name in op.outputs:
        if name in f.types:
            yield f.types[name]


def ints(value: Any) -> list[int]:
    """A constant argument as integers; none if it is missing."""
    return [] if value is None else [int(v) for v in np.atleast_1d(value)]


def complain(condition: Any, text: str) -> str | None:
    """``text`` if the condition is met."""
    return text if condition else None
