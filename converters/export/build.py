"""One function of a package in memory, for each format from one trace."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from ondevice.errors import ConfigError
from ondevice.signature import Output

from ..backend import Backend, Part, Settings
from ..compress.apply import Compression
from ..compress.calibrate import arrays_of, input_divisors
from ..compress.float16 import MAX_SAMPLES, Safety, make_safe, round_kernels
from ..compress.plan import Request, compress
from ..function import (
    Function,
)
from ..graph.graph import Graph, computed
from ..graph.passes import channels_first, run_passes
from ..graph.passes.precision import set_precision
from ..graph.trace import trace


@dataclass(frozen=True)
class Format:
    """A package that is to be written: where, by which back end, with what settings."""

    path: Path
    backend: Backend
    settings: Settings

    @property
    def versions(self) -> dict[str, str]:
        """With what and how the package is made."""
        return {
            "version": version("ondevice"),
            **{f"ondevice.{name}": value for name, value in asdict(self.settings).items()},
            "ondevice.versions": json.dumps(self.backend.versions),
        }


def to_graph(function: Function) -> Graph:
    """What ``function`` computes, raised and folded, in MLX's layout."""
    return run_passes(trace(function.model, *function.inputs, fn=function.fn))


def build(
    function: Function,
    backend: Backend,
    settings: Settings,
    request: Request | None = None,
) -> Part:
    """One function of a package, in memory."""
    (part,) = build_all(function, [Format(Path(), backend, settings)], request)
    return part


def build_all(
    function: Function, formats: Sequence[Format], request: Request | None = None
) -> list[Part]:
    """One function for each format, from one trace with the same compressed weights: such as
    every format holds, the largest package within the budget."""
    graph, settings = to_graph(function), formats[0].settings
    for each in formats:
        each.backend.check(graph)
        function = named(function, graph, each.backend)
    graph = run_passes(rename_inputs(graph, function.input_names), settings.before)
    graph, safety = _in_range(graph, function, settings.precision, request)
    divisors = input_divisors(graph, safety.rescaled)

    def packed(compressed: Compression, form: Format) -> Any:
        typed = _typed(compressed.graph, function, settings.precision, safety)
        return form.backend.build(typed, function, form.settings, compressed.forms)

    compressed = compress(
        run_passes(lay_out(graph, function), settings.after),
        function,
        request,
        storage=min((f.settings.storage for f in formats), key=lambda storage: storage.level),
        precision=settings.precision,
        size_of=lambda found: max(f.backend.size_of(packed(found, f)) for f in formats),
        float32=safety.float32,
        divisors=divisors,
    )
    said = dict(compressed.metadata)
    if settings.precision == "float16":
        said["ondevice.float16"] = safety.to_json()
    parts = []
    for each in formats:
        start = time.perf_counter()
        built = packed(compressed, each)
        parts.append(Part(function, built, said, time.perf_counter() - start))
    return parts


def _typed(graph: Graph, function: Function, precision: str, safety: Safety) -> Graph:
    """The physical graph with a type for every value."""
    outputs = zip(graph.outputs, function.signature.outputs, strict=True)
    return set_precision(
        graph,
        precision,
        keep=safety.float32,
        io_dtype=function.io_dtype,
        output_dtypes=function.output_dtypes,
        exact=[name for name, output in outputs if output.kind == "boxes"],
    ).check()


def _in_range(
    graph: Graph, function: Function, precision: str, request: Request | None
) -> tuple[Graph, Safety]:
    """The graph in values that ``precision`` holds, and what that took."""
    if precision != "float16":
        return graph, Safety()
    samples = islice(request.calibration if request else (), MAX_SAMPLES)
    graph, safety = make_safe(graph, function, arrays_of(function, samples))
    return round_kernels(graph, keep=safety.float32), safety


def lay_out(graph: Graph, function: Function) -> Graph:
    """The physical graph, its inputs and outputs as the function has them."""
    orders = function.orders
    inside = dict(zip(function.output_names, graph.outputs, strict=True))
    return channels_first(
        graph,
        {computed(name): orders[name] for name in function.input_names if name in orders},
        {inside[name]: orders[name] for name in inside if name in orders},
    ).check()


def named(function: Function, graph: Graph, backend: Backend | None = None) -> Function:
    """The function with a name for each output the graph turned out to have, all as the back
    end's format can have them.

    Raises ConfigError for names too many, too few, empty or equal.
    """
    signature, count = function.signature, len(graph.outputs)
    outputs = signature.outputs or tuple(map(Output, graph.output_names))
    if len(outputs) != count:
        raise ConfigError(f"{len(outputs)} output names for {count} outputs")
    if backend is not None:
        names = backend.names(function.input_names, [output.name for output in outputs])
        pairs = zip(signature.inputs, names[0], strict=True)
        inputs = tuple(replace(given, name=name) for given, name in pairs)
        outputs = tuple(replace(o, name=n) for o, n in zip(outputs, names[1], strict=True))
        signature = replace(signature, inputs=inputs)
    return replace(function, signature=replace(signature, outputs=outputs))


def rename_inputs(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with its inputs called ``names``."""
    made = [computed(name) for name in names]
    inputs = tuple(replace(v, name=n) for v, n in zip(graph.inputs, made, strict=True))
    renames = {v.name: n for v, n in zip(graph.inputs, made, strict=True) if v.name != n}
    return replace(graph.rename(renames), inputs=inputs).check()
