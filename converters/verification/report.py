"""What ``verify`` found: metrics first, then a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ondevice.errors import GateError

from .against import Agreement
from .deviations import Deviation, first_jump
from .metrics import Comparison

AS_SAVED = "as saved"


@dataclass(frozen=True)
class Step:
    """A package against the model in MLX float32: one of the baselines, or the saved one.

    ``deviations`` has every value against the float32 package's, and of that one every layer
    against MLX's, on the worst image; ``jump`` is where the error first jumps, told only of a
    step that failed.
    """

    name: str
    precision: str
    run_on: str
    package_bytes: int
    comparisons: tuple[Comparison, ...]
    gates: Mapping[str, float]
    deviations: tuple[Deviation, ...] = ()

    @property
    def failures(self) -> list[str]:
        """The gates that are missed, in words."""
        return [line for c in self.comparisons for line in c.failures(self.gates)]

    @property
    def passed(self) -> bool:
        """Whether no gate is missed."""
        return not self.failures

    @property
    def jump(self) -> Deviation | None:
        """Where the error first jumps, of a step that failed."""
        return None if self.passed else first_jump(self.deviations, self.precision)

    @property
    def worst_image(self) -> str:
        """Of the output that fails, or else of the first."""
        failing = (c for c in self.comparisons if c.failures(self.gates))
        return next(failing, self.comparisons[0]).worst_image

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        jump = asdict(self.jump) if self.jump else None
        return asdict(self) | {
            "passed": self.passed,
            "failures": self.failures,
            "worst_image": self.worst_image,
            "jump": jump,
        }


@dataclass(frozen=True)
class Report:
    """What ``verify`` found: metrics first, then a verdict. The last step is the package's.

    ``problems`` fail the check whatever the metrics, ``notes`` only explain it. ``precision``
    is what the boxes of both sides are worth on annotated images: their APs ("model",
    "package"), the "difference" and its 95 % interval ("low", "high").
    """

    model: str
    package: str
    images: int
    steps: tuple[Step, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)
    precision: Mapping[str, Any] = field(default_factory=dict)
    against: Agreement | None = None  # with another package, if one was given

    @property
    def as_saved(self) -> Step:
        """The step of the saved package."""
        return next(step for step in self.steps if step.name.startswith(AS_SAVED))

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Those of the saved package."""
        return self.as_saved.comparisons

    @property
    def gates(self) -> Mapping[str, float]:
        """Those of the saved package."""
        return self.as_saved.gates

    @property
    def package_bytes(self) -> int:
        """The saved package's size."""
        return self.as_saved.package_bytes

    @property
    def failures(self) -> list[str]:
        """Problems and missed gates, in words."""
        missed = [f"{step.name}: {line}" for step in self.steps for line in step.failures]
        apart = self.against.failures if self.against else []
        return [*self.problems, *missed, *apart]

    @property
    def passed(self) -> bool:
        """Whether there are none."""
        return not self.failures

    def require(self) -> Report:
        """Itself; raises GateError that lists every gate missed."""
        if self.failures:
            raise GateError(f"{self.package}: {'; '.join(self.failures)}")
        return self

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "steps": [step.to_dict() for step in self.steps],
            "passed": self.passed,
            "failures": self.failures,
        }
