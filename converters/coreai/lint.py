"""What a package has that devices are reported to get wrong or slow: one rule, one function.

A rule is static and knows what others have measured; no API tells where a function runs.
Sources, all by people with devices:

T#n   github.com/apple/coreai-torch, issue n
M#n   github.com/apple/coreai-models, issue n
A     apple/coreai-models, model-authoring/references/neural_engine_rules.md
Z     john-rocky/coreai-model-zoo, compute-units-and-authoring.md
"""

from __future__ import annotations

from collections.abc import Iterator

from ..graph.rules import Rules
from .stored import StoredFunction, StoredOp, TensorType

RULES = Rules()
rule, lint = RULES.rule, RULES.lint


def _results(op: StoredOp, f: StoredFunction) -> Iterator[TensorType]:
    return (f.types[name] for name in op.outputs)


@rule("error", "T#116")
def argmax(op: StoredOp, f: StoredFunction) -> str | None:
    """On an iPhone 17 Pro argmax gives wrong places wherever Core AI chooses to run it: give
    the scores, and let the app look for the largest."""
    return op.type if op.type == "argmax" else None


@rule("error", "T#10")
def floor_by_one(op: StoredOp, f: StoredFunction) -> str | None:
    """The GPU takes a floor, a ceiling or a quotient by one for the number itself: divide
    twice the number by two and round that down."""
    if op.type not in {"floor_divide", "broadcasting_floor_divide"}:
        return None
    divisor = f.value(op.inputs[1])
    return f"{op.type} by one" if divisor is not None and (divisor == 1).any() else None


@rule("error", "M#279")
def weights_per_block(op: StoredOp, f: StoredFunction) -> str | None:
    """Weights of 8 or 4 bits with a scale a block come out wrong on the Neural Engine: give
    each channel one scale, or use a palette."""
    formats = (f.weights[name].format for name in op.inputs if name in f.weights)
    return next((text for text in formats if "per block" in text), None)


@rule("error", "A")
def rank_above_five(op: StoredOp, f: StoredFunction) -> str | None:
    """No engine takes tensors of more than five axes: merge axes."""
    rank = max((len(kind.shape) for kind in _results(op, f)), default=0)
    return f"rank {rank}" if rank > 5 else None


@rule("warning", "Z")
def float32_island(op: StoredOp, f: StoredFunction) -> str | None:
    """One operation in float32 cuts the region of the Neural Engine in two: in a float16
    program, find what forces this."""
    is_mixed = any(kind.dtype == "fp16" for kind in f.types.values())
    wide = any(kind.dtype == "fp32" for kind in _results(op, f))
    return f"{op.type} in float32" if is_mixed and wide and op.type != "cast" else None


@rule("warning", "A")
def dynamic_shape(op: StoredOp, f: StoredFunction) -> str | None:
    """Shapes that are known only at run time keep a model off the Neural Engine: write a
    function for each size."""
    unknown = [kind.shape for kind in _results(op, f) if -1 in kind.shape]
    return f"shape {list(unknown[0])}" if unknown else None


@rule("info", "T#10")
def rounded_halves(op: StoredOp, f: StoredFunction) -> str | None:
    """The GPU rounds halves away from zero, the CPU to even: expect a difference of one."""
    return op.type if op.type == "round" else None
