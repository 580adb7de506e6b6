"""From our graph to functions of a Core AI program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ondevice.errors import UnsupportedOpError

from ..compress.forms import Form
from ..graph.graph import COMPUTED, Array, Graph, Node, Value as GraphValue
from ..graph.lowering import Lowerer, as_stored, spelled
from . import authoring, lowerings as lowerings
from .compressed import emit
from .registry import check_supported, lowering
from .values import dtype_of, numpy_type, shape_of, signed, unsigned

PIXELS = "_pixels"  # ends the name of a function that takes the images of another as arrays


@dataclass(frozen=True)
class Source:
    """What becomes one function, whose outputs are called ``names``.

    ``graph`` is physical: ``channels_first`` and ``set_precision`` have run. ``forms`` are the
    constants that are stored compressed. The inputs that ``images`` names, of shape
    (1, 3, H, W), go in as RGB images; the same as arrays is then a second function, called as
    the first with ``PIXELS`` at its end, which the first calls.
    """

    graph: Graph
    names: tuple[str, ...]
    forms: Mapping[str, Form] = field(default_factory=dict)
    images: tuple[str, ...] = ()


def to_program(sources: Mapping[str, Source]) -> Any:
    """A module with a function for each source, which share what is equal.

    Raises UnsupportedOpError for what Core AI cannot hold.
    """
    for source in sources.values():
        check_supported(source.graph)
    builder = authoring.new_builder()
    try:
        with authoring.building(builder):
            for function, source in sources.items():
                _add(source, function)
    except UnsupportedOpError as error:
        # Without the frames below: whatever prints their values, as pytest does, would ask for
        # those of a program that is gone, and end the process.
        raise UnsupportedOpError(str(error)) from None
    return builder.module


def _add(source: Source, function: str) -> None:
    graph, names = source.graph, source.names
    inside = function + PIXELS if source.images else function
    inputs = {
        v.name.removeprefix(COMPUTED): authoring.tensor(v.shape, numpy_type(v.dtype))
        for v in graph.inputs
    }
    values = [graph.values[name] for name in graph.outputs]
    outputs = {
        name: authoring.tensor(v.shape, numpy_type(v.dtype))
        for name, v in zip(names, values, strict=True)
    }

    def body(*given: Value) -> list[Value]:
        with authoring.steps(inside):
            lowerer = _Lowerer(graph, inside, source.forms, taken=[*inputs, *names])
            lowerer.values |= {v.name: x for v, x in zip(graph.inputs, given, strict=True)}
            lowerer.add_all(graph.nodes, "Core AI")
            return [lowerer.output(n, w) for n, w in zip(graph.outputs, names, strict=True)]

    call = authoring.define(inside, inputs, outputs, body)
    if source.images:
        _add_image_function(function, call, inputs, outputs, source.images)


def _add_image_function(
    function: str,
    call: Any,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    images: tuple[str, ...],
) -> None:
    """A function that makes of RGB images what the function ``call`` takes, and calls it."""

    def body(*given: Value) -> list[Value]:
        values = dict(zip(inputs, given, strict=True))
        with authoring.steps(function):
            values |= {name: _planes(values[name], inputs[name]) for name in images}
            return call(*values.values())

    taken = {name: authoring.image(*inputs[name].shape[2:]) for name in images}
    authoring.define(function, {**inputs, **taken}, outputs, body)


def _planes(image: Value, wanted: Any) -> Value:
    pixels = ca.cast(ca.image_to_tensor(image), wanted.dtype)
    return ca.reshape(ca.transpose(pixels, unsigned([2, 0, 1])), signed(wanted.shape))


class _Lowerer(Lowerer):
    def __init__(
        self, graph: Graph, function: str, forms: Mapping[str, Form], taken: Iterable[str]
    ) -> None:
        super().__init__(graph, taken, spelled)
        self.function, self.forms = function, forms
        self.outputs: list[Value] = []

    def zeros(self, value: GraphValue) -> Value:
        return authoring.literal(np.zeros(value.shape, numpy_type(value.dtype)))

    def add(self, node: Node) -> None:
        dtype = self.float_type(node)
        inputs = [self.operand(name, dtype) for name in node.inputs]
        try:
            results = lowering(node.op)(node, *inputs, *node.args)
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise UnsupportedOpError(f"{authoring.first_line(error)} ({node})") from error
        results = results if isinstance(results, tuple) else (results,)
        for value, result in zip(node.outputs, results, strict=True):
            made, wanted = dtype_of(result), np.dtype(numpy_type(value.dtype))
            same = made == wanted or made.kind == wanted.kind == "i"  # int8 after Quantize
            if shape_of(result) != value.shape or not same:
                came = f"{made}{list(shape_of(result))}"
                raise UnsupportedOpError(f"it came out as {came} ({node})")
            self.values[value.name] = result
        self.title(node, results)

    def title(self, node: Node, results: Sequence[Value]) -> None:
        """Name what the node computes, but for what is no operation's."""
        title = self.title_of(node)
        if not any(r.defining_op is None for r in results):
            authoring.set_names(results, [self.unique(title) for _ in results], self.function)

    def operand(self, name: str, dtype: str) -> Value:
        if name not in self.graph.constants:
            return self.values[name]
        array = self.graph.constants[name]
        floating = np.issubdtype(array.dtype, np.floating)
        kind = dtype if floating and dtype.startswith("float") else ""
        if (name, kind) not in self.values:
            self.values[name, kind] = self._constant(name, array, kind)
        return self.values[name, kind]

    def _constant(self, name: str, array: Array, kind: str) -> Value:
        if name not in self.forms:
            return authoring.constant(
                as_stored(array, kind, "32 bits"), self.unique(name), self.function
            )
        made = emit(self.forms[name])
        authoring.set_names([made], [self.unique(name)], self.function)
        wanted = np.dtype(numpy_type(kind))
        return made if dtype_of(made) == wanted else ca.cast(made, wanted.type)

    def output(self, name: str, wanted: str) -> Value:
        """The value, under its outside name if it can have one."""
        value = self.operand(name, "float32")
        maker = value.defining_op
        if maker is not None and len(maker.results) == 1 and value not in self.outputs:
            authoring.set_names([value], [wanted], self.function)
        self.outputs.append(value)
        return value
