"""A package's graph, drawn from its program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ondevice.pages.graph import Node, draw

if TYPE_CHECKING:
    from ..program import Program

INPUT = "input"


def draw_program(package: Program, function: str | None = None) -> str:
    """The operations of a function as SVG: type, shape, and what they read. Constants are left
    out; those that have weights and those that only move values are in colour."""
    nodes = list(_nodes(package, function))
    return draw(nodes, f"{len(nodes)} inputs and operations of the package")


def _nodes(package: Program, function: str | None) -> Iterator[Node]:
    stored = package.stored(function)
    makers: dict[str, str] = {}  # of each value the node
    for name, feature in package.features("input", function).items():
        makers[name] = name
        yield Node(name, name, f"{INPUT} {_shape(feature.shape)}", str(feature), (), INPUT)
    for op in stored.operations:
        read = [*op.reads()]
        kind = "moves" if op.type in package.data_moving else ""
        if any(name in stored.weights for name in read):
            kind = "weighs"
        first = op.outputs[0] if op.outputs else op.name
        reads = tuple(dict.fromkeys(makers[name] for name in read if name in makers))
        more = f"{op.type} {op.name} reads {', '.join(read)}"
        yield Node(first, op.type, _shape(stored.shapes.get(first, ())), more, reads, kind)
        makers |= dict.fromkeys(op.outputs, first)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
