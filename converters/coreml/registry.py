"""Which MLX operations Core ML can hold, and how."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ondevice.errors import UnsupportedOpError

from ..graph import Graph, Node

Lowering = Callable[..., Any]
_LOWERINGS: dict[str, Lowering] = {}


def lower(*ops: str) -> Callable[[Lowering], Lowering]:
    """Register a function as the Core ML lowering of operations of our graph.

    It is called as ``fn(node, *inputs, *node.args)`` with MIL variables or numpy constants
    for inputs, and returns the MIL variable (or tuple of them) of the node's outputs.
    """

    def register(fn: Lowering) -> Lowering:
        for op in ops:
            if op in _LOWERINGS:
                raise ValueError(f"{op} already has a lowering, {_LOWERINGS[op].__name__}")
            _LOWERINGS[op] = fn
        return fn

    return register


def lowering(op: str) -> Lowering:
    return _LOWERINGS[op]


def check_supported(graph: Graph) -> None:
    """Raise UnsupportedOpError that lists every operation without a lowering and its place."""
    from . import lowerings as lowerings  # they register themselves, and import this module

    missing: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op not in _LOWERINGS:
            missing.setdefault(node.op, []).append(node)
    if missing:
        raise UnsupportedOpError(
            "no Core ML lowering for "
            + "; ".join(
                f"{op} (x{len(nodes)}, first in {place(graph, nodes[0])}: {nodes[0]})"
                for op, nodes in missing.items()
            )
            + "; add one with @lower in converters/coreml/lowerings/"
        )


def place(graph: Graph, node: Node) -> str:
    """The module a node is in, as far as the parameters around it tell."""
    seen, todo = {node.outputs[0].name}, [node]
    while todo:
        current = todo.pop(0)
        for name in current.inputs:
            if name in graph.constants and re.search(r"\.[a-z_]+$", name):
                return name.rpartition(".")[0]
            maker = graph.producer.get(name)
            if maker is not None and maker.outputs[0].name not in seen:
                seen.add(maker.outputs[0].name)
                todo.append(maker)
    return "the model's first layers"
