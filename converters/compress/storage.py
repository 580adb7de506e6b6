"""Which compressed forms a package can hold: known by level, whatever the back end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Level(IntEnum):
    """Each holds what the ones before it hold, and more."""

    TENSORS = 0  # eight bits with a scale a channel, one table a tensor, zeros left out
    ACTIVATIONS = 1  # values rounded to eight bits between layers
    BLOCKS = 2  # four bits, three-bit tables, blocks, tables a group, one form inside another
    OFFSETS = 3  # blocks whose zero lies between two codes


@dataclass(frozen=True)
class Storage:
    """The ``level`` that a package holds. ``names`` are those of packages that hold each, and
    ``hint`` says how to get one that holds more."""

    level: Level = Level.BLOCKS
    name: str = ""
    names: Mapping[Level, str] = field(default_factory=dict)
    hint: str = ""

    def holds(self, level: Level) -> bool:
        """Whether forms of ``level`` can be held."""
        return level <= self.level
