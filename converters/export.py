"""The straight line from a model to a package."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ondevice.errors import ConfigError
from ondevice.models.clip_text import TextTower
from ondevice.nn.layers import ImageModel
from ondevice.weights.output import replacing

from .compress.apply import Compression
from .compress.calibrate import arrays_of, input_divisors
from .compress.float16 import MAX_SAMPLES, Safety, make_safe, round_kernels
from .compress.plan import Request, compress
from .compress.recipe import CompressionRecipe
from .graph.graph import Graph, computed
from .graph.passes import channels_first, run_passes
from .graph.passes.precision import set_precision
from .graph.trace import trace
from .interface import Interface, array_interface, image_interface, text_interface

if TYPE_CHECKING:  # to import coremltools takes half a second: only what needs it does
    from .coreml.settings import Settings


class Options(TypedDict, total=False):
    """What ``export`` and ``export_module`` both take: see ``Settings`` and ``Request``."""

    target: str
    precision: str
    attention: str
    gelu: str
    recipe: str | Path | CompressionRecipe
    calibration: Iterable[Any]
    budget: int
    min_agreement: float
    account: Callable[[Any], None]
    front: bool
    force: bool


def export(
    model: nn.Module,
    path: str | Path,
    *,
    input: str | None = None,
    size: int | Sequence[int] | None = None,
    outputs: str | Sequence[str] | None = None,
    **options: Unpack[Options],
) -> Path:
    """Write a model of ``ondevice.create_model`` to a Core ML package at ``path``.

    An RGB image (1, 3, size, size) goes in, with the checkpoint's normalization inside;
    ``outputs`` come out: any of ``logits`` (the default, with labels), ``embedding``,
    ``features`` (one map a stage, channels-first) and ``tokens``. ``size``, in pixels,
    replaces the native input size. Several sizes become one package with a function each
    (``size_256``) that share their weights, from iOS18 on. With ``input="array"`` the image
    goes in as ``images``, a float32 array (1, 3, H, W) that the caller has normalized with
    the contract's mean and std, and all that comes out is float32.

    Of a CLIP's text encoder, token numbers (1, context) go in as ``text``, and the unit vector
    ``embedding`` comes out.

    ``target``, ``precision``, ``attention`` and ``gelu`` are explained in ``Settings``. The
    ranges that half precision has to hold are measured on a test pattern and on up to eight
    ``calibration`` samples, given as ``verify`` takes them. ``recipe`` (a preset's name, a
    file, a CompressionRecipe) compresses it, better so with a few dozen of those samples.
    ``budget`` (the package's bytes) or ``min_agreement`` (a share of the samples' classes)
    instead search a format for each layer. ``account`` is called with the result: a row a
    weight, and with ``front`` the sizes that were to be had and what they cost.

    Raises ConfigError, ImageError, UnsupportedOpError, or OutputError when ``path`` exists and
    ``force`` is not given; nothing half-made is left.
    """
    given = {"input": input, "size": size, "outputs": outputs}
    if isinstance(model, ImageModel):
        form, wanted = input or "image", _listed(outputs or "logits")
        interfaces = [
            image_interface(model, input=form, outputs=wanted, size=size)
            for size in _sizes(size)
        ]
        return _write(interfaces, describe_model(model, interfaces[0]), path, options)
    kind = type(model).__name__
    if not isinstance(model, TextTower):
        raise ConfigError(f"{kind} is no model of ours: export_module({kind}, inputs, path)")
    if refused := [name for name, value in given.items() if value is not None]:
        raise ConfigError(f"{', '.join(refused)}: of images; {kind} takes texts")
    return _write([text_interface(model)], describe_text(model), path, options)


def export_module(
    module: nn.Module,
    inputs: mx.array | Sequence[mx.array] | Mapping[str, mx.array],
    path: str | Path,
    *,
    input_names: str | Sequence[str] = (),
    output_names: str | Sequence[str] = (),
    **options: Unpack[Options],
) -> Path:
    """Write any ``mlx.nn`` module in eval mode to a Core ML package at ``path``.

    ``inputs`` are examples of what it is called with, by position or, in a dict, by keyword:
    arrays go in and come out in the shapes and with the axes that MLX has (images are NHWC).
    Inputs are called ``input``, or ``input_0``, ``input_1``, …, or by their keywords; outputs
    by their keys or fields in what the module returns, or else likewise. The other options and
    errors are those of ``export``.
    """
    interface = array_interface(
        module, inputs, input_names=_listed(input_names), output_names=_listed(output_names)
    )
    metadata = {"description": f"{type(module).__name__}, exported from MLX"}
    return _write([interface], metadata, path, options)


def _write(
    interfaces: Sequence[Interface],
    metadata: Mapping[str, str],
    path: str | Path,
    options: Options,
) -> Path:
    """The package's path. One interface becomes a package, several its functions."""
    from .coreml.gc_frozen import old_objects_at_rest
    from .coreml.settings import Settings

    given: dict[str, Any] = dict(options)
    force = given.pop("force", False)
    chosen = {f.name: given.pop(f.name) for f in fields(Settings) if f.name in given}
    settings = Settings(**chosen)
    path = _check(path, settings, functions=len(interfaces))
    request = Request(**given)
    metadata = {**metadata, **versions(settings)}
    with old_objects_at_rest(), replacing(path, force=force, marker="Manifest.json") as partial:
        write(interfaces, settings, request, partial, metadata)
    return path


def _sizes(size: int | Sequence[int] | None) -> list[int | None]:
    """The wanted input sizes, None for the native one."""
    return [size] if size is None or isinstance(size, int) else list(dict.fromkeys(size))


def _listed(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _check(path: str | Path, settings: Settings, functions: int) -> Path:
    """The path of the package to write. Raises ConfigError that lists what is impossible."""
    path = Path(path)
    problems = settings.problems()
    if path.suffix != ".mlpackage":
        problems.append(f"{path} does not end in .mlpackage")
    if functions > 1 and settings.target < "iOS18":
        problems.append("several sizes in one package need target iOS18; export one by one")
    if problems:
        raise ConfigError("; ".join(problems))
    return path


def to_graph(interface: Interface) -> Graph:
    """What ``interface`` computes, raised and folded, in MLX's layout."""
    return run_passes(trace(interface.model, *interface.inputs, fn=interface.fn))


def build(interface: Interface, settings: Settings, request: Request | None = None) -> Any:
    """The package in memory, as coremltools' ``MLModel``."""
    from .coreml.package import size_of
    from .coreml.registry import check_supported

    graph = to_graph(interface)
    check_supported(graph)
    interface = named(interface, graph)
    graph = run_passes(rename_inputs(graph, interface.input_names), settings.before)
    safety = Safety()
    if settings.precision == "float16":
        samples = islice(request.calibration if request else (), MAX_SAMPLES)
        graph, safety = make_safe(graph, interface, arrays_of(interface, samples))
        graph = round_kernels(graph, keep=safety.float32)
    divisors = input_divisors(graph, safety.rescaled)
    pack = partial(_pack, interface=interface, settings=settings, float32=safety.float32)
    compressed = compress(
        run_passes(lay_out(graph, interface), settings.after),
        interface,
        request,
        target=settings.target,
        precision=settings.precision,
        size_of=lambda compression: size_of(pack(compression)),
        float32=safety.float32,
        divisors=divisors,
    )
    package = pack(compressed)
    package.user_defined_metadata.update(compressed.metadata)
    if settings.precision == "float16":
        package.user_defined_metadata["ondevice.float16"] = safety.to_json()
    return package


def _pack(
    compressed: Compression,
    interface: Interface,
    settings: Settings,
    float32: Collection[str],
) -> Any:
    """The package of a physical graph; the nodes that ``float32`` names stay in that type."""
    from .coreml.package import to_package
    from .coreml.program import to_program

    graph = set_precision(
        compressed.graph, settings.precision, keep=float32, border=interface.border
    ).check()
    program = to_program(
        graph, target=settings.target, names=interface.output_names, forms=compressed.forms
    )
    return to_package(program, interface, target=settings.target)


def lay_out(graph: Graph, interface: Interface) -> Graph:
    """The physical graph, its inputs and outputs as the interface has them."""
    orders = interface.orders
    inside = dict(zip(interface.output_names, graph.outputs, strict=True))
    return channels_first(
        graph,
        {computed(name): orders[name] for name in interface.input_names if name in orders},
        {inside[name]: orders[name] for name in inside if name in orders},
    ).check()


def named(interface: Interface, graph: Graph) -> Interface:
    """The interface with a name for each output the graph turned out to have.

    Raises ConfigError for names too many, too few, empty or equal.
    """
    from .coreml.names import check_names

    count = len(graph.outputs)
    given = interface.output_names or graph.output_names
    if len(given) != count:
        raise ConfigError(f"{len(given)} output names for {count} outputs")
    inputs, outputs = check_names(interface.input_names, given)
    return replace(interface, input_names=tuple(inputs), output_names=tuple(outputs))


def rename_inputs(graph: Graph, names: Sequence[str]) -> Graph:
    if len(names) != len(graph.inputs):
        raise ConfigError(f"{len(names)} input names for {len(graph.inputs)} inputs")
    made = [computed(name) for name in names]
    inputs = tuple(replace(v, name=n) for v, n in zip(graph.inputs, made, strict=True))
    renames = {v.name: n for v, n in zip(graph.inputs, made, strict=True) if v.name != n}
    return replace(graph.rename(renames), inputs=inputs).check()


def write(
    interfaces: Sequence[Interface],
    settings: Settings,
    request: Request,
    path: Path,
    metadata: dict[str, str],
) -> None:
    """Save one interface as a package, several as the functions of one package."""
    from .coreml.package import describe, join, save

    if len(interfaces) == 1:
        package = build(interfaces[0], settings, request)
        describe(package, interfaces[0], metadata)
        save(package, path)
        return
    parts = {}
    for interface in interfaces:
        name = f"size_{interface.inputs[0].shape[1]}"
        parts[name] = path.parent / f"{name}.mlpackage"
        package = build(replace(interface, labels=()), settings, request)
        describe(package, interface, metadata)
        save(package, parts[name])
    labels = interfaces[0].labels  # several functions cannot be a classifier
    join(parts, path, metadata | ({"ondevice.labels": json.dumps(labels)} if labels else {}))


def describe_model(model: ImageModel, interface: Interface) -> dict[str, str]:
    """What a package says of the model in it."""
    info, size = model.info, interface.inputs[0].shape[1]
    metadata = _origin(model, f"{_task(model)}, {size} px RGB picture in")
    metadata["ondevice.preprocess"] = json.dumps(asdict(replace(info.preprocess, size=size)))
    if interface.picture:
        metadata |= interface.picture.contract
    if info.labels and not interface.border:
        metadata["com.apple.coreml.model.preview.type"] = "imageClassifier"
    return metadata


def describe_text(model: TextTower) -> dict[str, str]:
    """What a package says of the text encoder in it."""
    return _origin(model, f"text encoder, {model.config.context} token numbers in")


def _origin(model: nn.Module, what: str) -> dict[str, str]:
    """Where a model comes from, as far as it is known."""
    info = model.info
    metadata = {
        "author": info.source or "ondevice",
        "license": info.license,
        "description": f"{info.name}: {what}",
        "ondevice.model": info.name,
        "ondevice.config": json.dumps(info.config.to_dict()),
        "ondevice.weights_sha256": weights_hash(model),
        "ondevice.provenance": info.provenance,
    }
    return {key: value for key, value in metadata.items() if value}


def _task(model: ImageModel) -> str:
    classes = model.info.config.num_classes
    return f"classifier of {classes} classes" if "head" in model else "image encoder"


def versions(settings: Settings) -> dict[str, str]:
    """With what and how a package was made."""
    return {
        "version": version("ondevice"),
        **{f"ondevice.{name}": value for name, value in asdict(settings).items()},
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
        digest.update(np.ascontiguousarray(arrays[name].astype(mx.float32)).data)
    return digest.hexdigest()
