"""Core AI's packages as a back end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend import Backend, Part, Settings, own_names
from ..graph.lowering import spelled
from ..program import LABELS_KEY
from .required import LIBRARY

if TYPE_CHECKING:
    from ..compress.forms import Form
    from ..function import Function
    from ..graph.graph import Graph
    from ..program import Program

# coreai-core takes half a second to import: only what needs it does.


def _check(graph: Graph) -> None:
    from .registry import check_supported

    check_supported(graph)


def _build(
    graph: Graph, function: Function, settings: Settings, forms: Mapping[str, Form]
) -> Any:
    """A ``package.Built``."""
    from .package import build
    from .program import Source

    pairs = zip(function.input_names, function.forms, strict=True)
    images = tuple(name for name, form in pairs if form and not form.io_dtype)
    return build(Source(graph, function.output_names, forms, images))


def _size_of(built: Any) -> int:
    from .package import size_of

    return size_of(built)


def _save(parts: Mapping[str, Part], path: Path, metadata: Mapping[str, str]) -> None:
    """Metadata are those of the package: each function's, the first's where they differ."""
    from .package import save

    said: dict[str, str] = {}
    for part in parts.values():
        if part.function.labels:
            said.setdefault(LABELS_KEY, json.dumps(part.function.labels))
        said = {**part.metadata, **said}
    save({name: part.built for name, part in parts.items()}, path, {**metadata, **said})


def _load(path: Path) -> Program:
    from .loaded import load

    return load(path)


def input_name(name: str) -> str:
    """The name as one that Python could give to an argument, which coreai-core makes of it."""
    plain = spelled(name)
    if plain[:1].isdigit():
        plain = f"var_{plain}"
    return f"{plain}_" if iskeyword(plain) else plain


def _names(inputs: Sequence[str], outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    return own_names(inputs, outputs, input_name, "coreai-core takes names of Python")


BACKEND = Backend(
    name="Core AI",
    suffix=".aimodel",
    marker="main.mlirb",
    settings=Settings,
    check=_check,
    build=_build,
    size_of=_size_of,
    save=_save,
    load=_load,
    names=_names,
    distributions=(LIBRARY,),
)
