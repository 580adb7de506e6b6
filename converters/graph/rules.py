"""Rules about the operations of a saved function: how one is registered, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
# An operation, and the function it is in, to a complaint.
Check = Callable[[Any, Any], str | None]
_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One rule that operations break: how many, the first few, and what to do."""

    rule: str
    severity: Severity
    source: str
    advice: str
    count: int
    examples: tuple[str, ...]


class Rule(NamedTuple):
    """A check under its name, with how grave it is and who says so."""

    name: str
    severity: Severity
    source: str
    check: Check

    @property
    def advice(self) -> str:
        """What to do: the check's docstring."""
        return " ".join((self.check.__doc__ or "").split())

    def apply(self, function: Any) -> Finding | None:
        """What the rule finds in a function, if anything."""
        complaints = [
            f"{op.name}: {complaint}"
            for op in function.operations
            if (complaint := self.check(op, function))
        ]
        if not complaints:
            return None
        first = tuple(complaints[:_EXAMPLES])
        return Finding(
            self.name, self.severity, self.source, self.advice, len(complaints), first
        )


class Rules(list[Rule]):
    """The rules of one format."""

    def rule(self, severity: Severity, source: str) -> Callable[[Check], Check]:
        """Register a check, which is called with each operation and the function."""

        def register(check: Check) -> Check:
            self.append(Rule(check.__name__.replace("_", "-"), severity, source, check))
            return check

        return register

    def lint(self, function: Any) -> list[Finding]:
        """What the function breaks, errors first."""
        found = [finding for each in self if (finding := each.apply(function))]
        return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
