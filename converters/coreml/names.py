"""Names that Core ML takes, and that no two values share."""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import own_names
from ..graph.lowering import spelled

# What a MIL program calls its types; coremltools would rename a value of such a name.
RESERVED = frozenset(
    "any bool program func tensor list dict tuple true false string state bf16 fp16 fp32 fp64 "
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
)


def mil_name(name: str) -> str:
    """The name as a MIL program can hold it: letters, digits and underscores."""
    plain = spelled(name)
    if plain[:1].isdigit():
        plain = f"var_{plain}"
    return f"{plain}_" if plain in RESERVED else plain


def check_names(inputs: Sequence[str], outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """As ``own_names``, in letters that Core ML takes."""
    return own_names(inputs, outputs, mil_name, "Core ML takes letters, digits and _")
