"""The rules of Core ML packages, and what a check needs of an operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...graph.rules import Rules
from ..stored import StoredFunction, StoredOp

RULES = Rules()
rule = RULES.rule


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
