"""The straight line from a model to a package, of whatever format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import mlx.core as mx
import mlx.nn as nn

from ondevice.errors import ConfigError
from ondevice.signature import Signature, signature_of

from ..compress.recipe import CompressionRecipe
from ..compress.training import own_recipe, shared_recipe
from ..function import (
    Function,
    check_together,
    describe_model,
    describe_models,
    model_function,
    module_function,
)
from ..program import EXAMPLES_KEY, KEYWORDS_KEY
from ..program.options import names_of, sizes_of
from .job import Job


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
    job = Job(path, given, functions=len(sizes))
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
    job = Job(path, given, functions=len(models))
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
    job = Job(path, options)
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


def _sized(function: Function) -> str:
    """The name of one function of several: they differ by their images' size."""
    return f"size_{function.signature.images[0].shape[1]}"
