"""The straight line from a model to a package, of whatever format."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, Unpack

import mlx.core as mx
import mlx.nn as nn

from ondevice.errors import ConfigError
from ondevice.signature import Output, Signature, signature_of
from ondevice.weights.output import replacing

from .backend import (
    BACKENDS,
    COMPILED,
    Backend,
    Part,
    Settings,
    backend_of,
    load_package,
)
from .compress.apply import Compression
from .compress.calibrate import arrays_of, input_divisors
from .compress.float16 import MAX_SAMPLES, Safety, make_safe, round_kernels
from .compress.plan import Request, compress
from .compress.recipe import CompressionRecipe
from .compress.training import own_recipe, shared_recipe
from .function import (
    Function,
    check_together,
    describe_model,
    describe_models,
    labels_beside,
    model_function,
    module_function,
    without_labels,
)
from .function.golden import golden_of, reserve
from .graph.graph import Graph, computed
from .graph.passes import channels_first, run_passes
from .graph.passes.precision import set_precision
from .graph.trace import trace
from .program import EXAMPLES_KEY, KEYWORDS_KEY
from .program.options import check_export, names_of, sizes_of


class Options(TypedDict, total=False):
    """What both exports take: ``Settings`` and ``Request`` say more. ``golden=False`` leaves
    out the generated image beside a package, with what has to come of it, that apps check."""

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
    also: str | Path | Sequence[str | Path]
    timed: Callable[[Path, float], None]
    golden: bool


def export(
    model: nn.Module,
    path: str | Path,
    *,
    input: str | None = None,
    size: int | Sequence[int] | None = None,
    outputs: str | Sequence[str] | None = None,
    **options: Unpack[Options],
) -> Path:
    """Write a model of ``ondevice.load`` to a package; the suffix of ``path`` is its format.

    ``outputs``, by the names in ``model.signature`` (by default those it usually gives), come
    out: of an image model any of ``logits``, ``embedding``, ``features`` (one map a stage,
    channels-first) and ``tokens``. An RGB image (1, 3, size, size) goes in, with the
    checkpoint's normalization inside, and classes that have names get probabilities. ``size``,
    in pixels, replaces the native input size. Several sizes become one package with a function
    each (``size_256``) that share their weights. With ``input="array"`` the image goes in as
    ``images``, a float32 array (1, 3, H, W) that the caller has normalized with the contract's
    mean and std, and all that comes out is float32. Of a CLIP's text encoder, token ids
    (1, context) go in as ``text``, and the unit vector ``embedding`` comes out.

    ``target``, ``precision``, ``attention`` and ``gelu`` are explained in the back end's
    ``Settings``. The ranges that half precision has to hold are measured on a test pattern and
    on up to eight ``calibration`` samples, given as ``verify`` takes them. ``recipe`` (a
    preset's name, a file, a CompressionRecipe) compresses it, better so with a few dozen of
    those samples. ``budget`` (the package's bytes) or ``min_agreement`` (a share of the
    samples' classes) instead search a format for each layer. A model that was trained to be
    rounded has a recipe of its own, used unless another is given ("none": stay float).
    ``account`` is called with the result: a row a weight, and with ``front`` the sizes that
    were to be had and what they cost.

    ``also`` are paths of the same in other formats, from one trace with the same weights, an
    option being for the formats that have it. ``timed`` is called with each path and the
    seconds that its format took: its building and saving, without what all share.

    Raises ConfigError, ImageError, UnsupportedOpError, or OutputError when ``path`` exists and
    ``force`` is not given; nothing half-made is left, and of several packages all or none.
    """
    signature = _signature(model)
    sizes = sizes_of(size)
    given: Any = {**options, **own_recipe(model, options)}
    job = _Job(path, given, functions=len(sizes))
    if input is not None and not signature.images:
        raise ConfigError(f"input is of images; {signature.model} takes {signature.listed()}")
    chosen = signature.select(outputs)
    resized = [chosen if pixels is None else chosen.resized(pixels) for pixels in sizes]
    functions = [model_function(model, each, input=input or "image") for each in resized]
    named = {_sized(f) if len(functions) > 1 else "main": f for f in functions}
    return job.write(named, describe_model(model, functions[0]))


def export_functions(
    models: Mapping[str, nn.Module],
    path: str | Path,
    *,
    outputs: str | Sequence[str] | None = None,
    **options: Unpack[Options],
) -> Path:
    """Write several models to one package: a function each, by its name, equal weights once.

    Such are several tasks' adapters or heads over one base. Their images have to be prepared
    alike. Options and errors are those of ``export``; what asks for samples is not among them,
    as they would be of one model only.
    """
    of_samples = [n for n in ("calibration", "budget", "min_agreement") if options.get(n)]
    if of_samples:
        raise ConfigError(f"{', '.join(of_samples)} of several models: export them one by one")
    given: Any = shared_recipe(models, options)
    job = _Job(path, given, functions=len(models))
    check_together(models)
    functions = {
        name: model_function(model, _signature(model).select(outputs))
        for name, model in models.items()
    }
    return job.write(functions, describe_models(models, functions))


def _signature(model: nn.Module) -> Signature:
    """Raises ConfigError for a model that has none."""
    found = signature_of(model)
    if found is None:
        kind = type(model).__name__
        raise ConfigError(f"{kind} is no model of ours: export_module({kind}, inputs, path)")
    return found


def export_module(
    module: nn.Module,
    inputs: mx.array | Sequence[mx.array] | Mapping[str, mx.array],
    path: str | Path,
    *,
    input_names: str | Sequence[str] = (),
    output_names: str | Sequence[str] = (),
    **options: Unpack[Options],
) -> Path:
    """Write any ``mlx.nn`` module in eval mode to a package at ``path``.

    ``inputs`` are examples of what it is called with, by position or, in a dict, by keyword:
    arrays go in and come out in the shapes and with the axes that MLX has (images are NHWC).
    Inputs are called ``input``, or ``input_0``, ``input_1``, …, or by their keywords; outputs
    by their keys or fields in what the module returns, or else likewise. The other options and
    errors are those of ``export``.
    """
    job = _Job(path, options)
    function = module_function(
        module, inputs, input_names=names_of(input_names), output_names=names_of(output_names)
    )
    metadata = {"description": f"{type(module).__name__}, exported from MLX"}
    if isinstance(inputs, Mapping):
        metadata[KEYWORDS_KEY] = json.dumps(list(inputs))
    examples = [(_type(x), x.shape) for x in function.inputs]
    if any(dtype not in ("float32", "int32") or not shape for dtype, shape in examples):
        metadata[EXAMPLES_KEY] = json.dumps(examples)
    return job.write({"main": function}, metadata)


def _type(example: mx.array) -> str:
    """By NumPy's name; floats are measured in float32."""
    is_float = mx.issubdtype(example.dtype, mx.floating)
    return "float32" if is_float else str(example.dtype).removeprefix("mlx.core.")


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


class _Job:
    """Where to write what, in which formats: checked before any work."""

    def __init__(self, path: str | Path, options: Options, functions: int = 1) -> None:
        """Raises ConfigError that lists everything impossible."""
        check_export(path=path, **options)
        given: dict[str, Any] = dict(options)
        self.force = given.pop("force", False)
        self.timed = given.pop("timed", lambda path, seconds: None)
        self.golden = given.pop("golden", True)
        also = given.pop("also", ())
        also = [also] if isinstance(also, str | Path) else [*also]
        backends = _backends([path, *also])
        known = {f.name for b in backends.values() for f in fields(b.settings)}
        chosen = {name: given.pop(name) for name in known & given.keys()}
        asked = {f.name for f in fields(Request) if f.init}
        if unknown := sorted(given.keys() - asked):
            names = " and ".join(b.name for b in backends.values())
            raise ConfigError(
                f"no option {', '.join(unknown)} of {names}; there are "
                f"{', '.join(sorted(known | asked | {'also', 'force', 'golden'}))}"
            )
        self.formats = [Format(p, b, _settings(b, chosen)) for p, b in backends.items()]
        problems = (p for f in self.formats for p in f.settings.problems(functions))
        if listed := list(dict.fromkeys(problems)):
            raise ConfigError("; ".join(listed))
        self.request = Request(**given)

    def write(self, functions: Mapping[str, Function], metadata: Mapping[str, str]) -> Path:
        """The first package's path. One function becomes a package, several share one.

        All packages are there in the end, or none.
        """
        with ExitStack() as stack:
            partial = [
                stack.enter_context(
                    replacing(f.path, force=self.force, marker=f.backend.marker)
                )
                for f in self.formats
            ]
            paths = [f.path for f in self.formats] if self.golden else []
            first = next(iter(functions.values()))
            beside = reserve(stack, first, paths, force=self.force)
            said = dict(metadata)
            if len(functions) > 1:  # none can be a classifier: the labels stand beside
                said |= labels_beside(functions)
                functions = {name: without_labels(f) for name, f in functions.items()}
            built = {n: build_all(f, self.formats, self.request) for n, f in functions.items()}
            for i, (form, path) in enumerate(zip(self.formats, partial, strict=True)):
                parts = {name: found[i] for name, found in built.items()}
                start = time.perf_counter()
                form.backend.save(parts, path, said | form.versions)
                seconds = sum(part.seconds for part in parts.values())
                self.timed(form.path, seconds + time.perf_counter() - start)
            for i, path in beside.items():
                golden_of(first, load_package(partial[i])).write(path)
        return self.formats[0].path


def _backends(paths: Iterable[str | Path]) -> dict[Path, Backend]:
    """The back end of each path. Raises ConfigError for two packages of one format, and for
    one inside another package, which would be broken."""
    found: dict[Path, Backend] = {}
    for path in map(Path, paths):
        around = [p for p in path.absolute().parents if p.suffix in {*BACKENDS, *COMPILED}]
        if around:
            raise ConfigError(f"{path} lies inside the package {around[0]}: give another path")
        if path.suffix in {known.suffix for known in found}:
            raise ConfigError(f"{path}: another {path.suffix} is written already; give one")
        found[path] = backend_of(path)
    return found


def _settings(backend: Backend, chosen: Mapping[str, Any]) -> Settings:
    own = {f.name for f in fields(backend.settings)}
    return backend.settings(**{k: v for k, v in chosen.items() if k in own})


def _sized(function: Function) -> str:
    """The name of one function of several: they differ by their images' size."""
    return f"size_{function.signature.images[0].shape[1]}"


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
