"""What is in a package, anybody's: operations, weights, signature, origin, and the lint."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..backend import load_package
from ..program import Feature, Finding, Program, Weight


@dataclass(frozen=True)
class Inspection:
    """All that a package says without being run."""

    path: str
    bytes: int
    target: str
    functions: tuple[str, ...]
    function: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    operations: dict[str, int]
    data_moving: tuple[str, ...]  # types of operations that only move values
    weights: tuple[Weight, ...]
    preprocess: dict[str, Any] | None
    metadata: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def operation_count(self) -> int:
        """Constants aside."""
        return sum(self.operations.values())

    @property
    def data_moving_count(self) -> int:
        """How many of them only move values."""
        return sum(self.operations[op] for op in self.data_moving)

    def formats(self) -> dict[str, tuple[int, int, int]]:
        """By storage format: how many weights, of how many values, in how many bytes."""
        sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for weight in self.weights:
            entry = sums[weight.format]
            entry[0] += 1
            entry[1] += weight.size
            entry[2] += weight.bytes
        largest_first = sorted(sums.items(), key=lambda item: -item[1][2])
        return {name: (count, size, total) for name, (count, size, total) in largest_first}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "operation_count": self.operation_count,
            "data_moving_count": self.data_moving_count,
        }


def inspect(package: str | Path | Program, function: str | None = None) -> Inspection:
    """Raises PackageError."""
    package = package if isinstance(package, Program) else load_package(package)
    stored = package.stored(function)
    counts = Counter(op.type for op in stored.operations)
    return Inspection(
        path=str(package.path),
        bytes=package.size,
        target=package.system,
        functions=tuple(package.functions),
        function=function or package.default_function,
        inputs=(
            *package.features("input", function).values(),
            *package.optional_inputs.values(),
        ),
        outputs=tuple(package.features("output", function).values()),
        operations=dict(counts.most_common()),
        data_moving=tuple(op for op in counts if op in package.data_moving),
        weights=tuple(stored.weights.values()),
        preprocess=package.preprocess.to_dict() if package.preprocess else None,
        metadata=package.metadata,
        findings=tuple(package.findings(function)),
    )
