"""How long each step of something takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of each named step, added up: ``with clock("encode"): ...``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """A context: the time within it counts as ``step``."""
        start = time.perf_counter()
        yield
        self.add(step, time.perf_counter() - start)

    def add(self, step: str, seconds: float) -> None:
        """Count ``seconds`` as ``step``."""
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds
