"""Take models and graphs through the front of an export and the Core AI back end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import numpy as np

from converters.coreai.loaded import Package, load
from converters.coreai.package import build, save
from converters.coreai.program import Source
from converters.graph.graph import Graph
from converters.graph.passes.precision import set_precision

from ...support.lowered import as_module, physical_graph as physical_graph


def saved(graph: Graph, path: Path, names: Sequence[str] = ("y",), **options: Any) -> Package:
    """A physical graph as the package ``path``."""
    save({"main": build(Source(graph, tuple(names), **options))}, path, {})
    return load(path)


def run_graph(graph: Graph, xs: Sequence[mx.array], **options: Any) -> list[np.ndarray]:
    """What the program of a physical graph gives."""
    names = [f"out{i}" for i in range(len(graph.outputs))]
    inputs = {
        v.name.removeprefix("%"): np.array(x).reshape(v.shape)
        for v, x in zip(graph.inputs, xs, strict=True)
    }
    with TemporaryDirectory() as folder:
        program = saved(graph, Path(folder) / "m.aimodel", names, **options)
        outputs = program.predict(inputs)
    return [outputs[name] for name in names]


def assert_lowered(fn: Callable[..., Any], *xs: mx.array, limit: float = 2e-5) -> None:
    """The program and MLX agree: float32 against float32, relative to the largest value."""
    module = as_module(fn)
    wanted = module(*xs)
    wanted = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    for ours, theirs in zip(run_graph(physical_graph(module, *xs), xs), wanted, strict=True):
        reference = np.atleast_1d(np.array(theirs, np.float64))  # packages have no scalars
        assert ours.shape == reference.shape
        scale = np.abs(reference).max()
        assert scale > 0, "a result of zeros proves nothing"
        assert np.abs(ours - reference).max() <= limit * scale


def in_half(graph: Graph) -> Graph:
    return set_precision(graph, "float16").check()
