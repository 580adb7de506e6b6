"""What kind of package to write: every choice that is not the model's."""

from __future__ import annotations

from dataclasses import dataclass

from ondevice.errors import ConfigError

from ..graph.passes.switches import ATTENTION, GELU, Switch
from .targets import TARGETS

PRECISIONS = ("float16", "float32")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``target`` is the oldest system that runs it; ``attention`` and ``gelu`` are forms
    whose speed depends on the chip, and are named in ``passes/switches.py``."""

    target: str = "iOS17"
    precision: str = "float16"
    attention: str = "matmul"
    gelu: str = "exact"

    def problems(self) -> list[str]:
        """What is impossible about it, in words."""
        table = {
            "target": TARGETS,
            "precision": PRECISIONS,
            "attention": tuple(ATTENTION),
            "gelu": tuple(GELU),
        }
        found = [
            f"no {name} {getattr(self, name)!r}; there are {', '.join(known)}"
            for name, known in table.items()
            if getattr(self, name) not in known
        ]
        least = "" if found else ATTENTION[self.attention].least
        if least and TARGETS.index(self.target) < TARGETS.index(least):
            found.append(f"{self.attention} attention needs target {least}")
        return found

    def check(self) -> Settings:
        """Itself. Raises ConfigError that lists everything impossible."""
        if problems := self.problems():
            raise ConfigError("; ".join(problems))
        return self

    @property
    def before(self) -> tuple[Switch, ...]:
        """Passes to run before the layout."""
        return GELU[self.gelu].before + ATTENTION[self.attention].before

    @property
    def after(self) -> tuple[Switch, ...]:
        """Passes to run after it."""
        return ATTENTION[self.attention].after
