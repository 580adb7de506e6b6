"""Names that Core ML takes, and that no two values share."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence

from ondevice.errors import ConfigError

# What a MIL program calls its types; coremltools would rename a value of such a name.
RESERVED = frozenset(
    "any bool program func tensor list dict tuple true false string state bf16 fp16 fp32 fp64 "
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
)


def mil_name(name: str) -> str:
    """The name as a MIL program can hold it: letters, digits and underscores."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if plain[:1].isdigit():
        plain = f"var_{plain}"
    return f"{plain}_" if plain in RESERVED else plain


def check_names(inputs: Sequence[str], outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names as the package has them; a changed one is said in a warning.

    Raises ConfigError that lists every empty name, and those that would be the same.
    """
    names = [*inputs, *outputs]
    made = [mil_name(name) for name in names]
    count = Counter(made)
    problems = ["an input or output without a name"] if "" in names else []
    for name in dict.fromkeys(m for m in made if m and count[m] > 1):
        same = [repr(n) for n, m in zip(names, made, strict=True) if m == name]
        problems.append(f"{', '.join(same)} would all be called {name!r}")
    if problems:
        raise ConfigError(f"{'; '.join(problems)}: each input and output needs its own name")
    for name, new in zip(names, made, strict=True):
        if name != new:
            logging.getLogger("converters").warning(
                "%r is called %r in the package: Core ML takes letters, digits and _", name, new
            )
    return made[: len(inputs)], made[len(inputs) :]
