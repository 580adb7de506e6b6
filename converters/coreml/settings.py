"""What kind of Core ML package to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..backend import Settings
from ..compress.storage import Level, Storage
from .targets import TARGETS

# The first target that holds each level of compressed forms, and a form of attention.
LEVELS = {
    Level.TENSORS: "iOS16",
    Level.ACTIVATIONS: "iOS17",
    Level.BLOCKS: "iOS18",
    Level.OFFSETS: "iOS18",
}
ATTENTION = {"fused": "iOS18"}
SEVERAL = "iOS18"  # functions in one package


@dataclass(frozen=True, kw_only=True)
class CoreMLSettings(Settings):
    """``target`` is the oldest system that runs the package."""

    target: str = "iOS17"

    @property
    def choices(self) -> Mapping[str, tuple[str, ...]]:
        return {"target": TARGETS, **super().choices}

    def problems(self, functions: int = 1) -> list[str]:
        found = super().problems()
        if self.target not in TARGETS:
            return found
        least = ATTENTION.get(str(self.attention), TARGETS[0])
        if not self._reaches(least):
            found.append(f"{self.attention} attention needs target {least}")
        if functions > 1 and not self._reaches(SEVERAL):
            found.append(
                f"several sizes in one package need target {SEVERAL}; export one by one"
            )
        return found

    def _reaches(self, least: str) -> bool:
        return TARGETS.index(self.target) >= TARGETS.index(least)

    @property
    def storage(self) -> Storage:
        level = max(level for level, least in LEVELS.items() if self._reaches(least))
        return Storage(level, self.target, LEVELS, "raise --target")
