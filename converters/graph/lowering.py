"""What lowerings of all back ends have in common: the table, types and names of values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import numpy as np

from ondevice.errors import UnsupportedOpError

from .graph import COMPUTED, Array, Graph, Node, Value
from .passes.layout import REPLACED

Lowering = Callable[..., Any]
_LARGEST = 4e4  # stands for infinity in half precision: a mask must survive a sum
# What may be less than zero, of integers that 32 bits with a sign do not stand for.
_BELOW_ZERO = frozenset(
    {
        *product(["Negative"], ["uint8", "uint16", "uint32", "uint64"]),
        *product(["Subtract"], ["uint32", "uint64"]),
    }
)


def spelled(name: str) -> str:
    """A name or path in letters, digits and underscores: how packages call a value."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


class Lowerings(dict[str, Lowering]):
    """The lowerings of one format, by operation.

    One is called as ``fn(node, *inputs, *node.args)`` with the format's own values, and
    returns the value (or tuple of them) of the node's outputs.
    """

    def lower(self, *ops: str) -> Callable[[Lowering], Lowering]:
        """Register a function as the lowering of operations of our graph."""

        def register(fn: Lowering) -> Lowering:
            for op in ops:
                if op in self:
                    raise ValueError(f"{op} already has a lowering, {self[op].__name__}")
                self[op] = fn
            return fn

        return register

    def check(self, graph: Graph) -> None:
        """Raise UnsupportedOpError that lists every operation without one and its place."""
        known = self.keys() | REPLACED
        unknown = [node for node in graph.nodes if node.op not in known]
        graph.refuse(unknown or (n for n in graph.nodes if n.outputs[0].dtype == "complex64"))


class Lowerer:
    """What is known of the values of a graph that is being lowered.

    Names depend on the graph alone, so that packages of one model in two precisions or two
    formats can be compared value by value.
    """

    def __init__(self, graph: Graph, taken: Iterable[str], spell: Callable[[str], str]) -> None:
        """``taken`` are names in use; ``spell`` gives one as the format can have it."""
        self.graph, self.spell = graph, spell
        self.values: dict[Any, Any] = {}
        self.taken: Counter[str] = Counter(taken)

    def add_all(self, nodes: Iterable[Node], whose: str) -> None:
        """Lower each node. Raises one UnsupportedOpError for all that cannot be lowered.

        ``whose`` is the format's name, for what it lacks.
        """
        problems: dict[str, None] = {}
        for node in nodes:
            try:
                if (node.op, node.outputs[0].dtype) in _BELOW_ZERO:
                    raise UnsupportedOpError(
                        f"of {node.output.dtype}: {whose} has no integers without a sign; "
                        "compute in int32"
                    )
                self.add(node)
            except UnsupportedOpError as error:
                problems[f"{node.op} in {self.graph.place(node)}: {error}"] = None
                for value in node.outputs:  # so that the rest can be looked at
                    self.values[value.name] = self.zeros(value)
        if problems:
            raise UnsupportedOpError(f"cannot export {'; '.join(problems)}")

    def add(self, node: Node) -> None:
        """Lower one node. Raises UnsupportedOpError."""
        raise NotImplementedError

    def zeros(self, value: Value) -> Any:
        """A constant that stands for a value."""
        raise NotImplementedError

    def float_type(self, node: Node) -> str:
        """The type of the node's floating constants: that of the values it reads with them."""
        moving = (self.graph.values[i] for i in node.inputs if i not in self.graph.constants)
        floating = (v.dtype for v in moving if v.dtype.startswith("float"))
        return next(floating, node.outputs[0].dtype)

    def title_of(self, node: Node) -> str:
        """A layer's path for what it computes, the operation for anything else."""
        path = next((i for i in node.inputs[1:] if i.endswith(".weight")), "")
        is_layer = path in self.graph.constants
        return path.removesuffix(".weight") if is_layer else node.op.lower()

    def unique(self, name: str) -> str:
        """The name itself for its first bearer, then numbered."""
        name = self.spell(name.replace(COMPUTED, "constant_"))  # a literal, or a pass made it
        count = self.taken[name]
        self.taken[name] += 1
        return self.unique(f"{name}_{count}") if count else name


def as_stored(array: Array, dtype: str, whose: str) -> Array:
    """A constant as ``dtype``, or its integers in 32 bits, which ``whose`` says of a format.

    Raises UnsupportedOpError for an integer that does not fit.
    """
    if dtype == "float16":
        if np.isinf(array).any():
            array = np.where(np.isinf(array), np.sign(array) * _LARGEST, array)
        with np.errstate(over="ignore"):  # make_safe has kept those nodes in float32
            return array.astype(np.float16)
    if dtype == "float32":
        return array.astype(np.float32)
    if not np.issubdtype(array.dtype, np.integer):
        return array
    limits = np.iinfo(np.int32)
    ends = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if not limits.min <= ends[0] <= ends[1] <= limits.max:
        raise UnsupportedOpError(f"an integer of {max(ends[1], -ends[0])} does not fit {whose}")
    return array.astype(np.int32)
