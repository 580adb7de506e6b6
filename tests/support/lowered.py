"""Take an MLX function through graph, passes, layout and MIL, and run the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from converters.compress.float16 import make_safe
from converters.compress.storage import Storage
from converters.coreml.program import to_program
from converters.coreml.reference.plan import compile_function
from converters.coreml.settings import CoreMLSettings
from converters.export.build import named, rename_inputs, to_graph
from converters.function import Function as PackageFunction, model_function, module_function
from converters.graph.graph import Graph
from converters.graph.passes import channels_first
from converters.graph.passes.precision import set_precision


class Function(nn.Module):
    """A bare function as a module."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self.fn = fn

    def __call__(self, *xs: mx.array) -> Any:
        return self.fn(*xs)


def stored(target: str) -> Storage:
    """What a Core ML package for ``target`` holds."""
    return CoreMLSettings(target=target).storage


def as_module(fn: Callable[..., Any]) -> nn.Module:
    module = fn if isinstance(fn, nn.Module) else Function(fn)
    mx.eval(module.parameters())
    return module.eval()


def function_of(
    model: nn.Module, *, outputs: Any = None, size: int | None = None, **options: Any
) -> PackageFunction:
    """What ``export`` traces of a model of ours."""
    signature = model.signature.select(outputs)
    return model_function(model, signature.resized(size) if size else signature, **options)


def physical_graph(fn: Callable[..., Any], *xs: mx.array) -> Graph:
    """The graph as it goes to MIL."""
    function = module_function(as_module(fn), xs)
    graph = to_graph(function)
    function = named(function, graph)
    return channels_first(rename_inputs(graph, function.input_names)).check()


def ops(fn: Callable[..., Any], *xs: mx.array) -> Counter[str]:
    return Counter(node.op for node in physical_graph(fn, *xs).nodes)


def run_lowered(fn: Callable[..., Any], *xs: mx.array) -> list[np.ndarray]:
    """What the MIL program gives for ``xs``."""
    return run_graph(physical_graph(fn, *xs), xs)


def run_half(fn: Callable[..., Any], *xs: mx.array) -> list[np.ndarray]:
    """What the program gives in half precision, made safe as for a package."""
    function = module_function(as_module(fn), xs)
    graph = to_graph(function)
    function = named(function, graph)
    graph, safety = make_safe(rename_inputs(graph, function.input_names), function)
    laid = channels_first(graph).check()
    return run_graph(set_precision(laid, "float16", keep=safety.float32).check(), xs)


def run_graph(graph: Graph, xs: Sequence[mx.array], **options: Any) -> list[np.ndarray]:
    """What the program of a physical graph gives."""
    names = tuple(f"out{i}" for i in range(len(graph.outputs)))
    plan = compile_function(to_program(graph, names=names, **options).functions["main"])
    inputs = {
        v.name.removeprefix("%"): np.array(x) for v, x in zip(graph.inputs, xs, strict=True)
    }
    outputs = plan.run(inputs)
    return [outputs[name] for name in names]


def assert_lowered(fn: Callable[..., Any], *xs: mx.array, limit: float = 2e-5) -> None:
    """The MIL program and MLX agree: float32 against float32, relative to the largest value."""
    module = as_module(fn)
    wanted = module(*xs)
    wanted = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    for ours, theirs in zip(run_lowered(module, *xs), wanted, strict=True):
        reference = np.atleast_1d(np.array(theirs, np.float64))  # Core ML has no scalars
        assert ours.shape == reference.shape
        scale = np.abs(reference).max()
        assert scale > 0, "a result of zeros proves nothing"
        assert np.abs(ours - reference).max() <= limit * scale
