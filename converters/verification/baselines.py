"""The packages between a model and a saved one: the same export, one thing less at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice.signature import signature_of

from ..backend import PRECISIONS, backend_of, load_package
from ..graph.graph import Array, Graph
from ..graph.lowering import spelled
from .reference import example_inputs, export_options, function_of

if TYPE_CHECKING:
    from ..program import Program


@contextmanager
def fresh_packages(model: nn.Module, package: Program) -> Iterator[dict[str, Program]]:
    """``model`` exported as ``package`` was, uncompressed, by precision: float32 first.

    A float32 package needs no float16 one. The packages are gone after the block.
    """
    order = tuple(reversed(PRECISIONS))
    saved = package.precision
    precisions = order[: order.index(saved) + 1] if saved in order else order
    with tempfile.TemporaryDirectory(prefix="ondevice-") as folder:
        found = {}
        for precision in precisions:
            path = Path(folder) / f"{precision}{package.path.suffix}"
            _export(model, package, path, precision)
            found[precision] = load_package(path)
        yield found


def layout_of(model: nn.Module, package: Program) -> Graph:
    """The channels-first graph that ``export`` would compress for ``package``."""
    from ..export.build import lay_out, named, rename_inputs, to_graph
    from ..graph.passes import run_passes

    backend = backend_of(package.path)
    settings = backend.settings(**package.settings)
    function = function_of(model, package)
    graph = to_graph(function)
    function = named(function, graph, backend)
    graph = run_passes(rename_inputs(graph, function.input_names), settings.before)
    return run_passes(lay_out(graph, function), settings.after)


def layer_values(
    model: nn.Module, package: Program, given: Sequence[Array]
) -> dict[str, Array]:
    """What MLX computes of the outputs and of each layer that has a weight, by the names that
    packages give them."""
    from ..export.build import named, to_graph
    from ..graph.evaluate import evaluate

    function = function_of(model, package)
    graph = to_graph(function)
    function = named(function, graph)
    made = dict(zip(function.output_names, graph.outputs, strict=True))
    for node in graph.nodes:
        for path in node.inputs[1:]:
            if path.endswith(".weight") and path in graph.constants:
                title = spelled(path.removesuffix(".weight"))
                made.setdefault(title, node.outputs[0].name)
    inputs = [
        mx.array(np.asarray(x, v.dtype)).reshape(v.shape)  # pixel values are bytes
        for x, v in zip(given, graph.inputs, strict=True)
    ]
    values = evaluate(graph, *inputs, keep=made.values())
    return {title: np.array(values[name]) for title, name in made.items()}


def _export(model: nn.Module, package: Program, path: Path, precision: str) -> None:
    """``model`` as ``package`` was exported."""
    from ..export import export, export_module

    options: Any = {
        **export_options(model, package),
        **package.settings,
        "precision": precision,
        "golden": False,
    }
    if signature_of(model) is not None:
        export(model, path, **options, recipe="none")  # nor a recipe that it was trained for
    else:
        export_module(model, example_inputs(package), path, **options)
