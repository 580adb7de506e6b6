"""What a package holds: features, operations, weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, Protocol, TypeVar


@dataclass(frozen=True)
class Feature:
    """An input or output as a package declares it."""

    name: str
    kind: str  # "image", "array", "string", "dictionary", …
    shape: tuple[int, ...] = ()  # an image's is (height, width)
    dtype: str = ""  # an image's is its colour layout

    @property
    def numpy_type(self) -> str:
        """What an array of it is computed in."""
        return "int32" if self.dtype == "int32" else "float32"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array may have that shape: -1 is any length, () any shape."""
        pairs = zip(shape, self.shape, strict=False)
        same = len(shape) == len(self.shape) and all(d in (-1, n) for n, d in pairs)
        return same or not self.shape

    def __str__(self) -> str:
        shape = list(self.shape) if self.shape else ""
        return " ".join(f"{self.name}: {self.kind} {self.dtype} {shape}".split())


class Operation(Protocol):
    """One stored operation: its type, what it reads and what it writes."""

    @property
    def type(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    def reads(self) -> Iterator[str]:
        """The names of the values it reads, constants included."""


@dataclass(frozen=True)
class Weight:
    """A stored constant: what it is, in which format, and how many bytes that takes."""

    name: str
    shape: tuple[int, ...]
    format: str
    bytes: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


class Contents(Protocol):
    """A function as it is stored."""

    @property
    def operations(self) -> Sequence[Operation]:
        """What is computed, in order: constants aside."""

    @property
    def producers(self) -> Mapping[str, Operation]:
        """What makes each value, constants included."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each computed value that is made of numbers."""

    @property
    def weights(self) -> Mapping[str, Weight]:
        """Stored constants by name."""


class TensorType(NamedTuple):
    """The type of a stored value."""

    dtype: str  # "fp16", "int4", "bool", …; of an image its kind
    shape: tuple[int, ...]  # -1 where it is not fixed; an image's is (height, width)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """At the bits that its name ends in; eight for what has none."""
        bits = self.dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
        return math.ceil(self.size * int(bits if bits.isdigit() else 8) / 8)


Op = TypeVar("Op", bound=Operation)


class Wiring(Generic[Op]):
    """What makes and what reads each value of ``everything``, constants included."""

    everything: tuple[Op, ...]

    @cached_property
    def producers(self) -> dict[str, Op]:
        """What makes each value."""
        return {name: op for op in self.everything for name in op.outputs}

    @cached_property
    def readers(self) -> dict[str, list[Op]]:
        """What reads each value."""
        readers: dict[str, list[Op]] = {}
        for op in self.everything:
            for name in op.reads():
                readers.setdefault(name, []).append(op)
        return readers
