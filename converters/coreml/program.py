"""From our graph to a MIL program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, Var, types

from ondevice.errors import UnsupportedOpError

from ..compress.forms import Form
from ..graph.graph import COMPUTED, Graph, Node, Value
from ..graph.lowering import Lowerer, as_stored
from . import lowerings as lowerings
from .compressed import emit
from .names import mil_name
from .registry import check_supported, lowering
from .target import opset

_TYPES = {
    "float32": types.fp32,
    "float16": types.fp16,
    "int32": types.int32,
    "bool": types.bool,
}


def to_program(
    graph: Graph,
    *,
    target: str = "iOS17",
    names: tuple[str, ...] = (),
    forms: Mapping[str, Form] | None = None,
) -> Program:
    """Lower every node; outputs are called ``names``. Raises one UnsupportedOpError for all.

    ``graph`` is physical: ``channels_first`` and ``set_precision`` have run. ``forms`` are the
    constants that are stored compressed.
    """
    check_supported(graph)
    outside = {v.name: v.name.removeprefix(COMPUTED) for v in graph.inputs}
    inputs = {
        outside[v.name]: mb.placeholder(v.shape, _TYPES[_plain(v.dtype)]) for v in graph.inputs
    }
    program = Program()
    with Function(inputs, opset_version=opset(target)) as function:
        values: dict[Any, Any] = {v: function.inputs[name] for v, name in outside.items()}
        lowerer = _Lowerer(graph, values, forms or {}, target, taken=[*inputs, *names])
        lowerer.add_all(graph.nodes, "Core ML")
        outputs = [lowerer.output(n, w) for n, w in zip(graph.outputs, names, strict=True)]
        lowerer.name_the_rest(function)
        function.set_outputs(outputs)
        program.add_function("main", function)
    return program


class _Lowerer(Lowerer):
    def __init__(
        self,
        graph: Graph,
        values: dict[Any, Any],
        forms: Mapping[str, Form],
        target: str,
        taken: Iterable[str],
    ) -> None:
        super().__init__(graph, taken, mil_name)
        self.values, self.forms, self.target = values, forms, target
        self.outputs: set[str] = set()
        self.named: set[Var] = set()

    def zeros(self, value: Value) -> Any:
        dtype = types.nptype_from_builtin(_TYPES[_plain(value.dtype)])
        return mb.const(val=np.zeros(value.shape, dtype))

    def add(self, node: Node) -> None:
        dtype = self.float_type(node)
        inputs = [self.operand(name, dtype) for name in node.inputs]
        try:
            results = lowering(node.op)(node, *inputs, *node.args)
        except (ValueError, TypeError, KeyError, IndexError) as error:  # coremltools' own
            raise UnsupportedOpError(f"{' '.join(str(error).split())} ({node})") from error
        results = results if isinstance(results, tuple) else (results,)
        for value, result in zip(node.outputs, results, strict=True):
            if tuple(result.shape) != value.shape:
                raise UnsupportedOpError(f"it came out as {tuple(result.shape)} ({node})")
            self.values[value.name] = result
        self.title(node, results)

    def title(self, node: Node, results: tuple[Var, ...]) -> None:
        """Name what the node computes, but for constants."""
        title = self.title_of(node)
        for result in results:
            if result.op is not None and result.op.op_type != "const":
                result.name = self.unique(title)
                self.named.add(result)
        if results[0].op is not None:
            results[0].op.name = results[0].name

    def operand(self, name: str, dtype: str) -> Any:
        if name not in self.graph.constants:
            return self.values[name]
        if name in self.forms:
            if name not in self.values:
                self.values[name] = emit(self.forms[name], self.unique(name), self.target)
                self.named.add(self.values[name])
            return self.values[name]
        array = self.graph.constants[name]
        floating = np.issubdtype(array.dtype, np.floating)
        kind = _plain(dtype) if floating and dtype.startswith("float") else ""
        key = (name, kind)
        if key not in self.values:
            array = as_stored(array, kind, "Core ML's 32 bits")
            self.values[key] = mb.const(val=array, name=self.unique(name))
            self.named.add(self.values[key])
        return self.values[key]

    def output(self, name: str, wanted: str) -> Var:
        """The value under its outside name; an input or a constant goes through an identity."""
        value = self.operand(name, "float32")
        if value.op is None or value.op.op_type == "const" or value.name in self.outputs:
            value = mb.identity(x=value)
        value.name = wanted
        self.outputs.add(wanted)
        self.named.add(value)
        return value

    def name_the_rest(self, function: Function) -> None:
        """Name what coremltools has named: it counts over all programs that it ever built.

        Constants are named anew later; until then only none may have another value's name.
        """
        for op in function.operations:
            for value in op.outputs:
                own = op.op_type == "const" and value.name not in self.taken
                if value not in self.named and not own:
                    value.name = self.unique(f"step_{op.op_type}")
                    op.name = op.outputs[0].name


def _plain(dtype: str) -> str:
    return "int32" if "int" in dtype else dtype
