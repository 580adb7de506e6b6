"""Take models and graphs through the front of an export and the Core AI back end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import numpy as np
from converters.interface import Interface, array_interface

from converters.compress.apply import Compression
from converters.compress.calibrate import arrays_of, input_divisors
from converters.compress.float16 import MAX_SAMPLES, Safety, make_safe, round_kernels
from converters.compress.plan import Request, compress
from converters.coreai.loaded import Program, load
from converters.coreai.package import Built, build, save, size_of
from converters.coreml.settings import Settings
from converters.export import lay_out, named, rename_inputs, to_graph
from converters.graph.graph import Graph
from converters.graph.passes import channels_first, run_passes
from converters.graph.passes.precision import set_precision

from ...support.lowered import as_module


def front(
    interface: Interface, settings: Settings | None = None, request: Request | None = None
) -> tuple[Graph, Interface, Compression]:
    """What ``converters.export.build`` hands to a back end: see there for each step."""
    settings = settings or Settings(target="iOS18", precision="float32")
    graph = to_graph(interface)
    interface = named(interface, graph)
    graph = run_passes(rename_inputs(graph, interface.input_names), settings.before)
    safety = Safety()
    if settings.precision == "float16":
        samples = islice(request.calibration if request else (), MAX_SAMPLES)
        graph, safety = make_safe(graph, interface, arrays_of(interface, samples))
        graph = round_kernels(graph, keep=safety.float32)
    divisors = input_divisors(graph, safety.rescaled)

    def packed(compression: Compression) -> Built:
        typed = set_precision(
            compression.graph,
            settings.precision,
            keep=safety.float32,
            border=interface.border,
        ).check()
        return build(
            typed,
            names=interface.output_names,
            forms=compression.forms,
            image=interface.picture.name if interface.picture and not interface.border else "",
        )

    compressed = compress(
        run_passes(lay_out(graph, interface), settings.after),
        interface,
        request,
        target=settings.target,
        precision=settings.precision,
        size_of=lambda compression: size_of(packed(compression)),
        float32=safety.float32,
        divisors=divisors,
    )
    return packed(compressed), interface, compressed


def built(interface: Interface, **options: Any) -> Built:
    """A float32 function of the interface, or as ``settings`` and ``request`` say."""
    return front(interface, **options)[0]


def saved(parts: Built | Mapping[str, Built], path: Path, **metadata: str) -> Program:
    save(parts, path, metadata)
    return load(path)


def physical_graph(fn: Callable[..., Any], *xs: mx.array) -> Graph:
    interface = array_interface(as_module(fn), xs)
    graph = to_graph(interface)
    interface = named(interface, graph)
    return channels_first(rename_inputs(graph, interface.input_names)).check()


def run_graph(graph: Graph, xs: Sequence[mx.array], **options: Any) -> list[np.ndarray]:
    """What the program of a physical graph gives."""
    names = tuple(f"out{i}" for i in range(len(graph.outputs)))
    inputs = {
        v.name.removeprefix("%"): np.array(x) for v, x in zip(graph.inputs, xs, strict=True)
    }
    with TemporaryDirectory() as folder:
        program = saved(build(graph, names=names, **options), Path(folder) / "m.aimodel")
        outputs = program.predict(inputs)
    return [outputs[name] for name in names]


def assert_lowered(fn: Callable[..., Any], *xs: mx.array, limit: float = 2e-5) -> None:
    """The program and MLX agree: float32 against float32, relative to the largest value."""
    module = as_module(fn)
    wanted = module(*xs)
    wanted = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    for ours, theirs in zip(run_graph(physical_graph(module, *xs), xs), wanted, strict=True):
        reference = np.array(theirs, np.float64)
        assert ours.shape == reference.shape
        scale = np.abs(reference).max()
        assert scale > 0, "a result of zeros proves nothing"
        assert np.abs(ours - reference).max() <= limit * scale


def in_half(graph: Graph) -> Graph:
    return set_precision(graph, "float16").check()
