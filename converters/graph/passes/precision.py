"""Give every value its type: half precision, and float32 where that is needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ..graph import Graph, Node, Value
from ..ops import op


def set_precision(
    graph: Graph,
    precision: str,
    keep: Collection[str] = (),
    io_dtype: str = "",
    output_dtypes: Sequence[str] = (),
    exact: Collection[str] = (),
) -> Graph:
    """Make every float value ``precision``, except those of the nodes that ``keep`` names.

    A node in ``keep`` (by the name of its first output) computes in float32, and an input
    that only such nodes read is float32 as well; so does what is computed element by element
    for an operand that has to be exact, or for one of the outputs ``exact``. Inputs are of the
    type ``io_dtype``, if one is given, and outputs of ``output_dtypes`` where those name one.
    An AsType stands wherever a value crosses over. Constants are cast where they are used.
    """
    if precision == "float32":
        return graph
    caster = _Caster(graph, precision, frozenset(keep) | _exactly(graph, exact))
    inputs = tuple(
        caster.typed(v, io_dtype or ("float32" if caster.is_kept(v.name) else precision))
        for v in graph.inputs
    )
    for node in graph.nodes:
        caster.add(node)
    wanted = output_dtypes or [io_dtype] * len(graph.outputs)
    outputs = tuple(
        caster.as_(name, dtype) if dtype else name
        for name, dtype in zip(graph.outputs, wanted, strict=True)
    )
    return replace(graph, inputs=inputs, nodes=tuple(caster.nodes), outputs=outputs)


_LOCAL = frozenset({"move", "arithmetic", "activation"})  # an element of each operand makes one


def _exactly(graph: Graph, outputs: Collection[str]) -> set[str]:
    """What is computed element by element, from layers on, for an operand or an output that
    has to be exact: a place in an image rounded to half precision is off by a third of a pixel.
    """
    found: set[str] = set()
    waiting = [node.inputs[i] for node in graph.nodes for i in op(node.op).exact]
    waiting += outputs
    while waiting:
        maker = graph.producer.get(waiting.pop())
        if maker is None or maker.outputs[0].name in found or not _is_local(maker):
            continue
        found.add(maker.outputs[0].name)
        waiting += [name for name in maker.inputs if graph.is_float(name)]
    return found


def _is_local(node: Node) -> bool:
    entry = op(node.op)
    return node.outputs[0].dtype.startswith("float") and (entry.kind in _LOCAL or entry.picks)


class _Caster:
    def __init__(self, graph: Graph, precision: str, keep: frozenset[str]) -> None:
        self.graph, self.precision, self.keep = graph, precision, keep
        self.dtype = {v.name: _typed(v, precision).dtype for v in graph.inputs}
        self.cast: dict[tuple[str, str], str] = {}
        self.nodes: list[Node] = []

    def is_kept(self, name: str) -> bool:
        readers = self.graph.consumers[name]
        return bool(readers) and all(n.outputs[0].name in self.keep for n in readers)

    def typed(self, value: Value, dtype: str) -> Value:
        value = _typed(value, dtype)
        self.dtype[value.name] = value.dtype
        return value

    def add(self, node: Node) -> None:
        dtype = "float32" if node.outputs[0].name in self.keep else self.precision
        exact = op(node.op).exact
        inputs = tuple(
            self.as_(name, "float32" if i in exact else dtype)
            for i, name in enumerate(node.inputs)
        )
        outputs = tuple(self.typed(v, dtype) for v in node.outputs)
        self.nodes.append(replace(node, inputs=inputs, outputs=outputs))

    def as_(self, name: str, dtype: str) -> str:
        """The name of the value in that type."""
        have = self.dtype.get(name)
        if have is None or have == dtype or not have.startswith("float"):
            return name
        if (name, dtype) not in self.cast:
            value = Value(f"{name}_{dtype}", self.graph.shape(name), dtype)
            self.nodes.append(Node("AsType", (name,), (value,), (dtype,)))
            self.cast[name, dtype] = value.name
        return self.cast[name, dtype]


def _typed(value: Value, dtype: str) -> Value:
    return replace(value, dtype=dtype) if value.dtype.startswith("float") else value
