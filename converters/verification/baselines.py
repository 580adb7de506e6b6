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

from ondevice.models.clip_text import TextTower
from ondevice.nn.layers import ImageModel

from ..graph.graph import Array, Graph
from ..interface import OUTPUTS, Interface, array_interface, image_interface, text_interface

if TYPE_CHECKING:
    from ..coreml.loaded import Package

KNOWN = ("float32", "float16")
# What a package's metadata say it was made with.
SETTINGS = ("target", "attention", "gelu")


@contextmanager
def fresh_packages(model: nn.Module, package: Package) -> Iterator[dict[str, Package]]:
    """``model`` exported as ``package`` was, uncompressed, by precision.

    A float32 package needs no float16 rung. The packages are gone after the block.
    """
    from ..coreml.loaded import load_package

    saved = package.metadata.get("ondevice.precision", "float16")
    precisions = KNOWN[: KNOWN.index(saved) + 1] if saved in KNOWN else KNOWN
    with tempfile.TemporaryDirectory(prefix="ondevice-") as room:
        rungs = {}
        for precision in precisions:
            path = Path(room) / f"{precision}.mlpackage"
            _export(model, package, path, precision)
            rungs[precision] = load_package(path)
        yield rungs


def layout_of(model: nn.Module, package: Package) -> Graph:
    """The channels-first graph that ``export`` would compress for ``package``."""
    from ..coreml.settings import Settings
    from ..export import lay_out, named, rename_inputs, to_graph
    from ..graph.passes import run_passes

    said = package.metadata
    chosen = {n: said[f"ondevice.{n}"] for n in SETTINGS if f"ondevice.{n}" in said}
    settings = Settings(**chosen).check()
    interface = _interface(model, package)
    graph = to_graph(interface)
    interface = named(interface, graph)
    graph = run_passes(rename_inputs(graph, interface.input_names), settings.before)
    return run_passes(lay_out(graph, interface), settings.after)


def layer_values(
    model: nn.Module, package: Package, given: Sequence[Array]
) -> dict[str, Array]:
    """What MLX computes of the outputs and of each layer that has a weight, by the names that
    packages give them."""
    from ..export import to_graph
    from ..graph.evaluate import evaluate

    interface = _interface(model, package)
    graph = to_graph(interface)
    made = dict(zip(interface.output_names, graph.outputs, strict=True))
    for node in graph.nodes:
        for path in node.inputs[1:]:
            if path.endswith(".weight") and path in graph.constants:
                title = path.removesuffix(".weight").replace(".", "_")
                made.setdefault(title, node.outputs[0].name)
    inputs = [
        mx.array(x, getattr(mx, v.dtype)).reshape(v.shape)  # levels are bytes
        for x, v in zip(given, graph.inputs, strict=True)
    ]
    values = evaluate(graph, *inputs, keep=made.values())
    return {title: np.array(values[name]) for title, name in made.items()}


def _interface(model: nn.Module, package: Package) -> Interface:
    """What ``export`` would trace."""
    if isinstance(model, TextTower):
        return text_interface(model)
    if not isinstance(model, ImageModel):
        return array_interface(model, example_inputs(package), output_names=declared(package))
    size = package.preprocess.size if package.preprocess else None
    return image_interface(model, outputs=output_kinds(package), size=size)


def _export(model: nn.Module, package: Package, path: Path, precision: str) -> None:
    """``model`` as ``package`` was exported."""
    from ..export import export, export_module

    options: dict[str, Any] = {
        name: package.metadata[f"ondevice.{name}"]
        for name in SETTINGS
        if f"ondevice.{name}" in package.metadata
    } | {"precision": precision}
    if isinstance(model, TextTower):
        export(model, path, **options)
    elif isinstance(model, ImageModel):
        size = package.preprocess.size if package.preprocess else None
        form = package.metadata.get("ondevice.input")
        export(model, path, input=form, size=size, outputs=output_kinds(package), **options)
    else:
        export_module(
            model,
            example_inputs(package),
            path,
            input_names=tuple(package.inputs),
            output_names=declared(package),
            **options,
        )


def example_inputs(package: Package) -> list[mx.array]:
    """Zeros as the package takes them."""
    kinds = {"int32": mx.int32}
    return [mx.zeros(f.shape, kinds.get(f.dtype, mx.float32)) for f in package.inputs.values()]


def declared(package: Package) -> tuple[str, ...]:
    """The outputs that are arrays of numbers: not a class label or its scores by label."""
    return tuple(name for name, f in package.outputs.items() if f.kind == "array")


def output_kinds(package: Package) -> tuple[str, ...]:
    """What ``export`` was asked for: features_0 and features_1 are both features."""
    names = declared(package)
    kinds = dict.fromkeys(n if n in OUTPUTS else n.split("_")[0] for n in names)
    kinds.pop("probabilities", None)
    return tuple(kinds) or ("logits",)
