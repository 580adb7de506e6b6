"""What becomes of every primitive of MLX: ``python -m converters.coreml.coverage`` prints it.

``docs/ops.md`` is what it prints; a test checks that it is current.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from ..graph.ops import OPS, REFUSED
from ..graph.passes.canonical import COPIES, RESHAPES
from ..graph.passes.complex_numbers import RULES
from ..graph.passes.layout import REPLACED
from ..graph.passes.numbers import NUMBERS
from ..graph.passes.scatters import SCATTERS
from ..graph.passes.writes import WRITES
from ..graph.record import RENAMED
from .registry import supported

_HEADER = """# Operations

What becomes of each primitive that MLX can trace. Written by
`python -m converters.coreml.coverage > docs/ops.md`.

- **lowered**: Core ML has it, or a few operations that give the same.
- **rewritten**: a pass says it in operations that are lowered.
- **traced through**: it leaves no trace; what it stands for is recorded.
- **folded**: computed when the package is written, where it depends on constants only; refused
  where it depends on the input, for the reason given.
- **refused**: an error names it, with the modules that it is in.

| primitive | what becomes of it | |
|---|---|---|"""

_THROUGH = {
    "BitwiseInvert": "`-1 - x`, or not",
    "Compiled": "functions of `mx.compile` run uncompiled while tracing",
    "Contiguous": "a copy",
    "CustomTransforms": "functions of `mx.checkpoint` and `mx.custom_function` run directly",
    "Depends": "its first input",
    "Load": "arrays of files are read before",
    "NumberOfElements": "all shapes are known",
} | dict.fromkeys(
    ("LayerNorm", "RMSNorm", "RoPE", "ScaledDotProductAttention", "CrossEntropy"),
    "recorded as the primitives it stands for",
)
_GRADIENT = "of gradients, which no forward pass has"
_BASES = frozenset("Custom DistPrimitive Primitive UnaryPrimitive".split())


def primitives() -> list[str]:
    """The names of all primitives, from the headers that MLX is installed with."""
    include = Path(mx.__file__).parent / "include" / "mlx"
    found: set[str] = set()
    for header in ("primitives.h", "fast_primitives.h", "compile_impl.h"):
        text = (include / header).read_text() if (include / header).exists() else ""
        found |= set(
            re.findall(r"class (?:MLX_API )?(\w+)\s*:\s*public \w*(?:Primitive|Custom)\b", text)
        )
    return sorted(found - _BASES)


def outcome(name: str) -> tuple[str, str]:
    """What becomes of a primitive, and a word about it."""
    if name in _THROUGH:
        return "traced through", _THROUGH[name]
    if name.endswith("VJP"):
        return "refused", _GRADIENT
    op = RENAMED.get(name) or name
    note = OPS[op].instead if op in OPS else ""
    if op in RESHAPES - {"Reshape"}:
        return "rewritten", "a Reshape"
    if op in COPIES - {"AsType"}:
        return "traced through", "a copy"
    if op in supported() | REPLACED:
        return "lowered", "of complex numbers as pairs too" if op in RULES else ""
    if op in WRITES or op in NUMBERS or op in SCATTERS:
        return "rewritten", f"of constants; else refused: {note}" if note else ""
    if op in RULES:
        return "rewritten", f"of pairs of real numbers; else refused: {note}"
    if op in OPS:
        return "folded", note
    return "refused", REFUSED[name]


def table() -> Iterator[str]:
    """The text of ``docs/ops.md``."""
    yield _HEADER
    outcomes = {name: outcome(name) for name in primitives()}
    for name, (what, note) in outcomes.items():
        yield f"| {name} | {what} | {note} |"
    counts = Counter(what for what, _ in outcomes.values())
    yield ""
    yield ", ".join(f"{n} {what}" for what, n in counts.most_common()) + "."


if __name__ == "__main__":
    print("\n".join(table()))
