"""A traced model as data: values, nodes, and the graph that holds them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, count
from typing import Any

import numpy as np

from ondevice.errors import UnsupportedOpError

from .ops import op
from .quantized import Quantized

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]


COMPUTED = "%"  # starts the name of every value that is not a parameter


def computed(name: str) -> str:
    """A name for a value that is not a parameter: no parameter's path can meet it."""
    return f"{COMPUTED}{name}"


def names_of_many(name: str, count: int) -> tuple[str, ...]:
    """``name`` for one, ``name_0``, ``name_1``, ... for several."""
    return (name,) if count == 1 else tuple(f"{name}_{i}" for i in range(count))


def free_name(name: str, taken: Container[str]) -> str:
    """``name``, or else the first of ``name.1``, ``name.2``, … that is not ``taken``."""
    numbered = (f"{name}.{i}" for i in count(1))
    return next(n for n in chain([name], numbered) if n not in taken)


@dataclass(frozen=True)
class Value:
    """One array: its name, shape and type (``float32``, ``int32``, …)."""

    name: str
    shape: Shape
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.name}:{self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class Node:
    """One operation: ``outputs = op(*inputs, *args)``.

    ``op`` is the name of an MLX primitive, or of an operation that a pass raised from several.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[Value, ...]
    args: tuple[Any, ...] = ()

    def __getitem__(self, name: str) -> Any:
        """The argument that the op table calls ``name``."""
        return self.args[op(self.op).args.index(name)]

    def with_args(self, **changed: Any) -> Node:
        """The node with other values for arguments that the op table calls so."""
        names = op(self.op).args
        values = zip(names, self.args, strict=True)
        return replace(self, args=tuple(changed.get(name, value) for name, value in values))

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    def __str__(self) -> str:
        operands = ", ".join([*self.inputs, *map(str, self.args)])
        return f"{', '.join(map(str, self.outputs))} = {self.op}({operands})"


@dataclass(frozen=True)
class Graph:
    """A model as a list of operations in topological order.

    Parameters and literals are ``constants``; a parameter keeps its path in the module
    tree (``stages.0.blocks.1.conv.m.weight``) as its name, all the way to the package. The
    names of inputs and of what is computed start with ``%`` and so cannot meet a path.
    ``places`` gives the module that a value is computed in, ``output_names`` what the outputs
    are called where the model has them by keys or positions, ``quantized`` the bits of the
    constants that MLX holds in a few.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    nodes: tuple[Node, ...]
    places: Mapping[str, str] = field(default_factory=dict)
    output_names: tuple[str, ...] = ()
    quantized: Mapping[str, Quantized] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(map(str, self.nodes))

    @cached_property
    def values(self) -> dict[str, Value]:
        """Every value by name, constants included."""
        constants = (Value(k, v.shape, str(v.dtype)) for k, v in self.constants.items())
        computed = (v for n in self.nodes for v in n.outputs)
        return {v.name: v for v in (*self.inputs, *constants, *computed)}

    @cached_property
    def producer(self) -> dict[str, Node]:
        """The node that computes each value."""
        return {v.name: n for n in self.nodes for v in n.outputs}

    @cached_property
    def uses(self) -> Counter[str]:
        """How often each value is read, by nodes and as an output of the graph."""
        return Counter([*self.outputs, *(i for n in self.nodes for i in n.inputs)])

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each value."""
        readers: dict[str, list[Node]] = {name: [] for name in self.values}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers[name].append(node)
        return readers

    def shape(self, name: str) -> Shape:
        """The shape of a value or constant."""
        return self.values[name].shape

    def is_float(self, name: str) -> bool:
        """Whether a value or constant is floating point."""
        return self.values[name].dtype.startswith("float")

    def crossing(self, refused: Callable[[Value], bool]) -> str:
        """The inputs and outputs that are so, as a user may know them; "" if there are none."""
        inputs = names_of_many("input", len(self.inputs))
        outputs = self.output_names or names_of_many("output", len(self.outputs))
        values = [*self.inputs, *(self.values[name] for name in self.outputs)]
        return ", ".join(
            f"{name} ({v.dtype}{list(v.shape)})"
            for name, v in zip((*inputs, *outputs), values, strict=True)
            if refused(v)
        )

    def place(self, node: Node) -> str:
        """The module a node is in, as far as its parameters, the trace or its operands tell."""
        seen, todo = {node.outputs[0].name}, [node]
        while todo:
            current = todo.pop(0)
            if found := self._module(current):
                return found
            for name in current.inputs:
                maker = self.producer.get(name)
                if maker is not None and maker.outputs[0].name not in seen:
                    seen.add(maker.outputs[0].name)
                    todo.append(maker)
        return "the module itself"

    def _module(self, node: Node) -> str:
        for name in node.inputs:
            module, _, leaf = name.rpartition(".")
            is_given = name in self.constants and not name.startswith(COMPUTED)
            if is_given and module and re.fullmatch("[a-z_]+", leaf):  # by no pass
                return module
        found = next((self.places[v.name] for v in node.outputs if v.name in self.places), None)
        return "the module itself" if found == "" else found or ""

    def refuse(self, nodes: Iterable[Node]) -> None:
        """Raise UnsupportedOpError that lists ``nodes`` by operation, if there are any."""
        by_op: dict[str, list[Node]] = {}
        for node in nodes:
            by_op.setdefault(node.op, []).append(node)
        if by_op:
            raise UnsupportedOpError(
                "cannot export "
                + "; ".join(self._refusal(name, found) for name, found in by_op.items())
            )

    def _refusal(self, name: str, nodes: Sequence[Node]) -> str:
        """The operation, where it is, why there is none and what to do."""
        places = list(dict.fromkeys(map(self.place, nodes)))
        listed = ", ".join(places[:3]) + (
            f" and {n} more" if (n := len(places) - 3) > 0 else ""
        )
        is_complex = any(v.dtype == "complex64" for n in nodes for v in n.outputs)
        instead = op(name).instead or (op("Real").instead if is_complex else "")
        instead = instead or (
            "no such operation; compute it outside of the module, or with other operations"
        )
        return f"{name} (x{len(nodes)}, in {listed}: {nodes[0]}): {instead}"

    def check(self) -> Graph:
        """Fail if a value is used before it is defined, or defined twice."""
        known = set(self.constants)
        for value in self.inputs:
            if value.name in known:
                raise ValueError(f"{value.name} is an input and is defined already")
            known.add(value.name)
        for node in self.nodes:
            if missing := set(node.inputs) - known:
                raise ValueError(f"{node.op} uses undefined {sorted(missing)}: {node}")
            for value in node.outputs:
                if value.name in known:
                    raise ValueError(f"{value.name} is defined twice: {node}")
                known.add(value.name)
        if missing := set(self.outputs) - known:
            raise ValueError(f"undefined graph outputs {sorted(missing)}")
        return self

    def with_nodes(self, nodes: Iterable[Node], **changes: Any) -> Graph:
        """The same graph with other nodes, and other constants if given."""
        return replace(self, nodes=tuple(nodes), **changes)

    def rename(self, names: Mapping[str, str]) -> Graph:
        """Read ``names[old]`` wherever ``old`` is read; chains are followed."""

        def last(name: str) -> str:
            while name in names:
                name = names[name]
            return name

        return self.with_nodes(
            (replace(n, inputs=tuple(map(last, n.inputs))) for n in self.nodes),
            outputs=tuple(map(last, self.outputs)),
        )
