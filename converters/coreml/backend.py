"""Core ML's packages as a back end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..backend import Backend, Part, Settings
from .gc_frozen import old_objects_at_rest
from .names import check_names
from .settings import CoreMLSettings

if TYPE_CHECKING:
    from ..compress.forms import Form
    from ..function import Function
    from ..graph.graph import Graph
    from ..program import Program

# coremltools takes half a second to import: only what needs it does.


def _check(graph: Graph) -> None:
    from .registry import check_supported

    check_supported(graph)


def _build(
    graph: Graph, function: Function, settings: Settings, forms: Mapping[str, Form]
) -> Any:
    """coremltools' ``MLModel``, whose weights lie in a temporary folder."""
    from .package import to_package
    from .program import to_program

    target = cast("CoreMLSettings", settings).target
    with old_objects_at_rest():
        program = to_program(graph, target=target, names=function.output_names, forms=forms)
        return to_package(program, function, target=target)


def _size_of(built: Any) -> int:
    from .package import size_of

    return size_of(built)


def _save(parts: Mapping[str, Part], path: Path, metadata: Mapping[str, str]) -> None:
    from .package import save_parts

    with old_objects_at_rest():
        save_parts(parts, path, metadata)


def _load(path: Path) -> Program:
    from .loaded import load_package

    return load_package(path)


BACKEND = Backend(
    name="Core ML",
    suffix=".mlpackage",
    marker="Manifest.json",
    settings=CoreMLSettings,
    check=_check,
    build=_build,
    size_of=_size_of,
    save=_save,
    load=_load,
    names=check_names,
    has_objects=True,
    distributions=("coremltools",),
)
