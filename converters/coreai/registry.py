"""Which operations of our graph Core AI can hold, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..graph.graph import Graph
from ..graph.passes.layout import REPLACED

Lowering = Callable[..., Any]
_LOWERINGS: dict[str, Lowering] = {}


def lower(*ops: str) -> Callable[[Lowering], Lowering]:
    """Register a function as the Core AI lowering of operations of our graph.

    It is called as ``fn(node, *inputs, *node.args)`` with Core AI values for inputs, constants
    included, and returns the value (or tuple of them) of the node's outputs.
    """

    def register(fn: Lowering) -> Lowering:
        for op in ops:
            if op in _LOWERINGS:
                raise ValueError(f"{op} already has a lowering, {_LOWERINGS[op].__name__}")
            _LOWERINGS[op] = fn
        return fn

    return register


def lowering(op: str) -> Lowering:
    """The lowering of an operation that has one."""
    return _LOWERINGS[op]


def check_supported(graph: Graph) -> None:
    """Raise UnsupportedOpError that lists every operation without a lowering and its place."""
    from . import lowerings as lowerings  # they register themselves, and import this module

    known = _LOWERINGS.keys() | REPLACED
    unknown = [node for node in graph.nodes if node.op not in known]
    graph.refuse(unknown or (n for n in graph.nodes if n.outputs[0].dtype == "complex64"))
