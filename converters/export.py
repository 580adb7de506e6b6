"""The straight line from a model to a package."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ondevice.errors import ConfigError
from ondevice.layers import ImageModel
from ondevice.output import replacing

from .compress.plan import Request, compress
from .compress.recipe import CompressionRecipe
from .float16 import Safety, make_safe
from .graph import Graph
from .interface import Interface, array_interface, image_interface
from .passes import channels_first, run_passes
from .passes.precision import set_precision
from .trace import trace

PRECISIONS = ("float16", "float32")


def export(
    model: nn.Module,
    *where: Any,
    target: str = "iOS17",
    precision: str = "float16",
    size: int | None = None,
    outputs: Sequence[str] = ("logits",),
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    recipe: str | Path | CompressionRecipe = "",
    calibration: Iterable[Any] = (),
    budget: int = 0,
    min_agreement: float = 0.0,
    account: Callable[[Any], None] = lambda _: None,
    force: bool = False,
) -> Path:
    """Write ``model`` to a Core ML package.

    ``export(model, path)`` takes a model of ``ondevice.create_model``: a picture goes in
    (with the checkpoint's normalization inside), ``outputs`` come out: any of ``logits`` (with
    labels), ``embedding``, ``features`` (one map a stage, channels-first) and ``tokens``;
    ``size`` replaces the native input size.

    ``export(module, example_inputs, path)`` takes any ``mlx.nn`` module in eval mode; arrays
    go in and come out in the shapes that MLX has.

    ``recipe`` (a preset's name, a file, a CompressionRecipe) compresses it, the better for a
    few dozen ``calibration`` samples, given as ``verify`` takes them. ``budget`` (the
    package's bytes) or ``min_agreement`` (a share of the samples' classes) instead search a
    format for each layer. ``account`` is called with the result: a row a weight.

    Raises ConfigError, ImageError, UnsupportedOpError, or OutputError when ``path`` exists and
    ``force`` is not given; nothing half-made is left.
    """
    *example, path = where
    path = check_options(path, target=target, precision=precision)
    if example:
        interface = array_interface(
            model, example[0], input_names=input_names, output_names=output_names
        )
        metadata = {"description": f"{type(model).__name__}, exported from MLX"}
    else:
        if not isinstance(model, ImageModel):
            raise ConfigError("export(module, example_inputs, path) needs example inputs here")
        interface = image_interface(model, outputs=outputs, size=size)
        metadata = describe_model(model, size=size)
    request = Request(recipe, calibration, budget, min_agreement, account)
    with replacing(path, force=force, marker="Manifest.json") as partial:
        package = build(interface, target=target, precision=precision, request=request)
        write(package, interface, partial, metadata | versions(target, precision))
    return path


def check_options(path: str | Path, *, target: str, precision: str) -> Path:
    """The path of the package to write. Raises ConfigError that lists what is impossible."""
    from .coreml.target import TARGETS

    path = Path(path)
    problems = []
    if path.suffix != ".mlpackage":
        problems.append(f"{path} does not end in .mlpackage")
    if target not in TARGETS:
        problems.append(f"no target {target!r}; there are {', '.join(TARGETS)}")
    if precision not in PRECISIONS:
        problems.append(f"no precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if problems:
        raise ConfigError("; ".join(problems))
    return path


def to_graph(interface: Interface) -> Graph:
    """What ``interface`` computes, raised and folded, in MLX's layout."""
    return run_passes(trace(interface.model, *interface.inputs, fn=interface.fn))


def build(
    interface: Interface, *, target: str, precision: str, request: Request | None = None
) -> Any:
    """The package in memory, as coremltools' ``MLModel``."""
    from .coreml.package import to_package
    from .coreml.program import to_program

    graph = to_graph(interface)
    interface = named(interface, graph)
    orders = interface.orders
    graph = rename_inputs(graph, interface.input_names)
    safety = Safety()
    if precision == "float16":
        graph, safety = make_safe(graph, interface)
    graph = channels_first(
        graph,
        {name: orders[name] for name in interface.input_names if name in orders},
        {
            inside: orders[name]
            for inside, name in zip(graph.outputs, interface.output_names, strict=True)
            if name in orders
        },
    ).check()
    compressed = compress(
        graph, interface, request, target=target, precision=precision, float32=safety.float32
    )
    graph = set_precision(compressed.graph, precision, keep=safety.float32).check()
    names, forms = interface.output_names, compressed.forms
    program = to_program(graph, target=target, names=names, forms=forms)
    package = to_package(program, interface, target=target, compact=bool(forms))
    package.user_defined_metadata.update(compressed.metadata)
    if precision == "float16":
        package.user_defined_metadata["ondevice.float16"] = safety.to_json()
    return package


def named(interface: Interface, graph: Graph) -> Interface:
    """The interface with a name for each output the graph turned out to have."""
    count = len(graph.outputs)
    if len(interface.output_names) == count:
        return interface
    if interface.output_names not in {("output",), ()}:
        raise ConfigError(f"{len(interface.output_names)} output names for {count} outputs")
    return replace(interface, output_names=tuple(f"output_{i}" for i in range(count)))


def rename_inputs(graph: Graph, names: Sequence[str]) -> Graph:
    if len(names) != len(graph.inputs):
        raise ConfigError(f"{len(names)} input names for {len(graph.inputs)} inputs")
    inputs = tuple(replace(v, name=n) for v, n in zip(graph.inputs, names, strict=True))
    renames = {v.name: n for v, n in zip(graph.inputs, names, strict=True) if v.name != n}
    return replace(graph.rename(renames), inputs=inputs).check()


def write(package: Any, interface: Interface, path: Path, metadata: dict[str, str]) -> None:
    from .coreml.package import describe, save

    describe(package, interface, metadata)
    save(package, path)


def describe_model(model: ImageModel, *, size: int | None = None) -> dict[str, str]:
    """What a package says of the model in it."""
    info = model.info
    contract = info.preprocess if size is None else replace(info.preprocess, size=size)
    metadata = {
        "author": info.source or "ondevice",
        "license": info.license,
        "description": f"{info.name}: {_task(model)}, {contract.size} px RGB picture in",
        "ondevice.model": info.name,
        "ondevice.config": json.dumps(info.config.to_dict()),
        "ondevice.preprocess": json.dumps(asdict(contract)),
        "ondevice.weights_sha256": weights_hash(model),
        "ondevice.provenance": info.provenance,
    }
    if info.labels:
        metadata["com.apple.coreml.model.preview.type"] = "imageClassifier"
    return {key: value for key, value in metadata.items() if value}


def _task(model: ImageModel) -> str:
    classes = model.info.config.num_classes
    return f"classifier of {classes} classes" if classes else "image encoder"


def versions(target: str, precision: str) -> dict[str, str]:
    """With what a package was made."""
    return {
        "version": version("ondevice"),
        "ondevice.target": target,
        "ondevice.precision": precision,
        "ondevice.versions": json.dumps(
            {name: version(name) for name in ("ondevice", "mlx", "coremltools", "numpy")}
            | {"python": platform.python_version()}
        ),
    }


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over all parameters, by name, as float32."""
    digest = hashlib.sha256()
    arrays: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.array(arrays[name].astype(mx.float32)).tobytes())
    return digest.hexdigest()
