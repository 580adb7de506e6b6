"""Write the nodes that stand for another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..graph import COMPUTED, Array, Graph, Node, Shape, Value, computed, free_name
from ..quantized import Quantized
from .dead_code import remove_dead_code


class Builder:
    """The nodes and constants that a pass adds to a graph; values are given by name."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[str, Array] = dict(graph.constants)
        self.quantized: dict[str, Quantized] = dict(graph.quantized)
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = dict(graph.values)

    def constant(self, array: Any, like: str) -> str:
        """A constant under a new name that says what it is for."""
        name = like if like.startswith(COMPUTED) else computed(like)
        name = free_name(name, self.values)
        self.constants[name] = np.asarray(array)
        shape, dtype = self.constants[name].shape, str(self.constants[name].dtype)
        self.values[name] = Value(name, shape, dtype)
        return name

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        shape: Shape,
        *args: Any,
        like: str,
        dtype: str = "",
    ) -> str:
        """A node and the name of its value, of the type of ``like`` if none is given."""
        name = free_name(f"{like}.{op.lower()}", self.values)
        value = Value(name, tuple(shape), dtype or self.values[like].dtype)
        self.values[name] = value
        self.nodes.append(Node(op, tuple(inputs), (value,), args))
        return name

    def copy(self, node: Node, **changes: Any) -> None:
        """A node that the graph had, changed."""
        self.nodes.append(replace(node, **changes))
        self.values |= {v.name: v for v in self.nodes[-1].outputs}

    def shape(self, name: str) -> Shape:
        """The shape of a value, old or new."""
        return self.values[name].shape

    def known(self, name: str) -> Array | None:
        """A constant's array, old or new, if it is one."""
        return self.constants.get(name)

    def done(self, names: Mapping[str, str]) -> Graph:
        """The graph, in which ``names`` says what is read in place of what."""
        graph = self.graph.with_nodes(
            self.nodes, constants=self.constants, quantized=self.quantized
        )
        return remove_dead_code(graph.rename(names))


Rewrite = Callable[[Builder, Node], "Sequence[str] | None"]


def rewritten(graph: Graph, rules: Mapping[str, Rewrite]) -> Graph:
    """Let a rule write what each node of its operation stands for.

    A rule gives the names of what the node's outputs are, or None where the node stays.
    """
    if not any(node.op in rules for node in graph.nodes):
        return graph
    builder = Builder(graph)
    names: dict[str, str] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(names.get(i, i) for i in node.inputs))
        found = rules[node.op](builder, node) if node.op in rules else None
        if found is None:
            builder.copy(node)
        else:
            names |= {v.name: n for v, n in zip(node.outputs, found, strict=True)}
    return builder.done(names)
