"""What a rule is: how it is registered, and what a check needs of an operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ..stored import StoredFunction, StoredOp

Severity = Literal["error", "warning", "info"]
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


@dataclass(frozen=True)
class Finding:
    """One rule that operations break: how many, the first few, and what to do."""

    rule: str
    severity: Severity
    source: str
    advice: str
    count: int
    examples: tuple[str, ...]


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
