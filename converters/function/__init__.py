"""A function of a package: what is traced, and what its inputs and outputs are called."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice.config import Preprocess
from ondevice.config.labels import check_labels
from ondevice.errors import ConfigError
from ondevice.image.preprocess import normalize
from ondevice.nn.fuse import fuse
from ondevice.signature import OBJECTS, Input, Output, Signature
from ondevice.signature.decode import probabilities
from ondevice.weights.hash import weights_hash

from ..graph.graph import Array, names_of_many
from ..graph.passes.layout import NCHW, Order
from ..graph.untouched import left_as_it_was
from ..program import LABELS_KEY, MAX_OVERLAP_KEY, PREPROCESS_KEY

Fn = Callable[..., Any]
Step = Callable[[mx.array], mx.array]
PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class ImageForm:
    """How an image goes into a package: what is done to its pixel values before, and inside.

    ``io_dtype`` is the type of the array that goes in, and of all that comes out; without
    one the package takes an image. ``metadata`` says it in the package.
    """

    name: str
    text: str
    metadata: Mapping[str, str]
    outside: Step = lambda x: x
    inside: Step = lambda x: x
    io_dtype: str = ""

    def given(self, pixels: Array) -> Array:
        """(B, H, W, 3) pixel values from 0 to 255 as the array that goes in, NHWC."""
        return np.array(self.outside(mx.array(pixels.astype(np.float32))))


def _as_image(given: Input, spec: Preprocess) -> ImageForm:
    return ImageForm(
        name=given.name,
        text="RGB image, resized and cropped",
        metadata={"ondevice.input": "image"},
        inside=lambda pixels: normalize(pixels, spec),
    )


def _as_array(given: Input, spec: Preprocess) -> ImageForm:
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (spec.mean, spec.std))
    shape = f"(1, 3, {spec.size}, {spec.size})"
    return ImageForm(
        name=f"{given.name}s",  # as Apple's FastVLM app calls it
        text=f"RGB image, {shape}, as (pixels / 255 - [{mean}]) / [{std}]",
        metadata={
            "ondevice.input": "array",
            "ondevice.layout": "NCHW",
            "ondevice.colors": "RGB",
        },
        outside=lambda pixels: normalize(pixels, spec),
        io_dtype="float32",
    )


# In what form a package can take the images of a model.
IMAGE_FORMS: dict[str, Callable[[Input, Preprocess], ImageForm]] = {
    "image": _as_image,
    "array": _as_array,
}


@dataclass(frozen=True)
class Function:
    """``fn`` calls ``model``, whose parameters keep their names; ``inputs`` are examples.

    ``signature`` has the names, kinds and axes of the package's inputs and outputs, and
    ``forms`` says for each input how an image goes in, None where it is an array.
    """

    model: nn.Module
    fn: Fn
    inputs: tuple[mx.array, ...]
    signature: Signature
    forms: tuple[ImageForm | None, ...]

    @property
    def input_names(self) -> tuple[str, ...]:
        """In the package."""
        return tuple(given.name for given in self.signature.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """In the package."""
        return tuple(output.name for output in self.signature.outputs)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that ``probabilities`` are of."""
        return next((o.labels for o in self.signature.outputs if o.is_classifier), ())

    @property
    def io_dtype(self) -> str:
        """The type of arrays that go in and come out; "" is the package's precision."""
        return next((form.io_dtype for form in self.forms if form and form.io_dtype), "")

    @property
    def output_dtypes(self) -> tuple[str, ...]:
        """The type of each output; "" is the package's precision, as images of half precision
        have it. Images of 8 bits are made of float32; places of boxes need it, and so does what
        suppresses them."""
        return tuple(
            self.io_dtype or ("float32" if _is_exact(output) else "")
            for output in self.signature.outputs
        )

    @property
    def orders(self) -> Mapping[str, Order]:
        """Of the inputs and outputs that a package holds channels-first."""
        images = [name for name, f in zip(self.input_names, self.forms, strict=True) if f]
        maps = [o.name for o in self.signature.outputs if o.axes == "NHWC"]
        return dict.fromkeys([*images, *maps], NCHW)

    @property
    def metadata(self) -> dict[str, str]:
        """What a package says of how images go in."""
        return {k: v for form in self.forms if form for k, v in form.metadata.items()}

    def given(self, sample: Any) -> tuple[Array, ...]:
        """A sample (see ``Signature.read``) as what goes in, images with a batch axis.

        Raises ImageError, ConfigError.
        """
        arrays = self.signature.read(sample)
        return tuple(
            form.given(x[None]) if form else x
            for form, x in zip(self.forms, arrays, strict=True)
        )

    def computed(self, sample: Any) -> dict[str, Array]:
        """What MLX computes of a sample, in float32: the outputs by name, laid out as the
        package has them. Probabilities, which packages have by label, are left out."""
        found = self.fn(*map(mx.array, self.given(sample)))
        listed = found if isinstance(found, list) else [found]
        outputs = {}
        for output, value in zip(self.signature.outputs, listed, strict=True):
            laid = value.transpose(0, 3, 1, 2) if output.axes == "NHWC" else value
            outputs[output.name] = np.array(laid.astype(mx.float32))
        outputs.pop(PROBABILITIES, None)
        return outputs


def _is_exact(output: Output) -> bool:
    is_of_boxes = output.kind == "boxes" or output.group == OBJECTS
    return output.pixels in ("grey", "rgb") or is_of_boxes


def model_function(
    model: nn.Module, signature: Signature, *, input: str = "image", fused: bool = True
) -> Function:
    """The outputs of ``signature``, preceded by probabilities where classes have labels.

    Raises ConfigError for an ``input`` form that does not exist, or labels that do not fit.
    """
    if input not in IMAGE_FORMS:
        raise ConfigError(f"no input {input}; there are {', '.join(IMAGE_FORMS)}")
    if fused:
        with left_as_it_was(model):  # in float32: half precision would round what is folded
            model = fuse(model)
    forms = tuple(
        IMAGE_FORMS[input](given, given.contract) if given.contract else None
        for given in signature.inputs
    )
    inputs = tuple(given.example() for given in signature.inputs)
    classes = next((output for output in signature.outputs if output.is_classifier), None)
    if classes:
        logits = signature.compute(model, *inputs)[classes.name]
        check_labels(classes.labels, logits.shape[-1], signature.model)

    def fn(*given: mx.array) -> list[mx.array]:
        pairs = zip(forms, given, strict=True)
        found = signature.compute(model, *(f.inside(x) if f else x for f, x in pairs))
        first = [probabilities(found[classes.name])] if classes else []
        return [*first, *found.values()]

    named = [
        replace(i, name=form.name) if form else i
        for i, form in zip(signature.inputs, forms, strict=True)
    ]
    outputs = signature.outputs
    if classes:
        said = Output(PROBABILITIES, "scores", text="Probability of each class")
        outputs = (said, *outputs)
    whole = replace(signature, inputs=tuple(named), outputs=outputs)
    return Function(model, fn, inputs, whole, forms)


def module_function(
    module: nn.Module,
    example_inputs: mx.array | Sequence[mx.array] | Mapping[str, mx.array],
    *,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> Function:
    """Arrays in, arrays out, shaped as MLX has them (images are NHWC). Raises ConfigError."""
    name = type(module).__name__
    if not isinstance(module, nn.Module):
        name = getattr(module, "__name__", name)
        raise ConfigError(f"{name} is no mlx.nn.Module; call it in the __call__ of one")
    given: Any = example_inputs
    by_keyword = dict(given) if isinstance(given, Mapping) else {}
    is_one = isinstance(given, mx.array | np.ndarray | np.generic | int | float)
    if not is_one and (isinstance(given, str | bytes) or not isinstance(given, Iterable)):
        raise _no_array(given)
    listed = by_keyword.values() or ([given] if is_one else given)
    arrays = tuple(map(_example, listed))
    _check_call(module, arrays, tuple(by_keyword))
    names = tuple(input_names or by_keyword) or names_of_many("input", len(arrays))
    if len(names) != len(arrays):
        raise ConfigError(f"{len(names)} input names for {len(arrays)} inputs")
    inputs = tuple(
        Input(n, shape=tuple(x.shape), dtype=_numpy_type(x))
        for n, x in zip(names, arrays, strict=True)
    )
    outputs = tuple(Output(n) for n in output_names)
    signature = Signature(inputs, outputs, tuple(output_names), name)
    fn = by_name(module, tuple(by_keyword)) if by_keyword else module
    return Function(module, fn, arrays, signature, (None,) * len(arrays))


def by_name(module: nn.Module, keywords: Sequence[str]) -> Fn:
    """A function of arrays by position that calls the module by ``keywords``."""
    return lambda *xs: module(**dict(zip(keywords, xs, strict=True)))


def _check_call(module: nn.Module, arrays: Sequence[mx.array], keywords: Sequence[str]) -> None:
    """Raises ConfigError for too many, too few or unknown arguments."""
    named = dict(zip(keywords, arrays, strict=False))
    try:
        call = inspect.signature(type(module).__call__)
        call.bind(module, *(() if named else arrays), **named)
    except TypeError as error:
        raise ConfigError(
            f"{type(module).__name__} is not called with {len(arrays)} arrays: {error}"
        ) from error


def _example(given: Any) -> mx.array:
    try:
        return _computable(mx.array(given))
    except (ValueError, TypeError, RuntimeError) as error:  # a type that MLX does not know
        raise _no_array(given) from error


def _no_array(given: Any) -> ConfigError:
    return ConfigError(
        f"an example of an input is an array or a number; given {type(given).__name__}: give "
        "an array, a list of them, or a dict by keyword"
    )


def _computable(x: mx.array) -> mx.array:
    """The array in a type that NumPy has."""
    return x.astype(mx.float32) if x.dtype == mx.bfloat16 else x


def _numpy_type(example: mx.array) -> str:
    """Integers stay integers; all else is measured in float32."""
    return "int32" if mx.issubdtype(example.dtype, mx.integer) else "float32"


def without_labels(function: Function) -> Function:
    """The same, no classifier: its probabilities are an array like any other."""
    plain = tuple(replace(output, labels=()) for output in function.signature.outputs)
    return replace(function, signature=replace(function.signature, outputs=plain))


def describe_model(model: nn.Module, function: Function) -> dict[str, str]:
    """What a package says of the model in it, as far as it is known."""
    info, signature = model.info, function.signature
    kinds = ", ".join(
        dict.fromkeys(OBJECTS if o.group == OBJECTS else o.name for o in signature.outputs)
    )
    takes = ", ".join(
        f"{i.shape[1]} px RGB image" if i.contract else str(i) for i in signature.inputs
    )
    metadata = {
        "author": info.source or "ondevice",
        "license": info.license,
        "description": f"{info.name}: {takes} in, {kinds} out",
        "ondevice.model": info.name,
        "ondevice.config": json.dumps(info.config.to_dict()),
        "ondevice.weights_sha256": weights_hash(model),
        "ondevice.provenance": info.provenance,
        **function.metadata,
    }
    if signature.labels and not function.labels:  # a classifier has a place for them
        metadata[LABELS_KEY] = json.dumps(signature.labels)
    for output in signature.outputs:
        if output.max_overlap < 1:
            metadata[MAX_OVERLAP_KEY] = f"{output.max_overlap:g}"
    for given in signature.images:
        if given.contract:
            metadata[PREPROCESS_KEY] = json.dumps(given.contract.to_dict())
    return {key: value for key, value in metadata.items() if value}


def check_together(models: Mapping[str, nn.Module]) -> None:
    """Raises ConfigError for models that cannot be functions of one package."""
    if bad := [name for name in models if not (name.isidentifier() and name.isascii())]:
        raise ConfigError(f"a function is called as in Swift, such as flowers; given {bad}")
    contracts = {model.info.preprocess for model in models.values()}
    if len(models) < 2 or len(contracts) > 1:
        count = f"{len(models)} models prepared in {len(contracts)} ways"
        raise ConfigError(f"{count}: expected several, whose images are prepared alike")


def describe_models(
    models: Mapping[str, nn.Module], functions: Mapping[str, Function]
) -> dict[str, str]:
    """As ``describe_model``, of a package with a function for each."""
    each = {name: describe_model(model, functions[name]) for name, model in models.items()}
    joined = ("author", "license", "description", "ondevice.provenance")
    first = next(iter(each.values()))
    own = {key: first[key] for key in (PREPROCESS_KEY, "ondevice.input") if key in first}
    for key in joined:
        own[key] = "; ".join(dict.fromkeys(said.get(key, "") for said in each.values()))
    weights = {name: said["ondevice.weights_sha256"] for name, said in each.items()}
    return {**own, "ondevice.functions": json.dumps(weights)}


def labels_beside(functions: Mapping[str, Function]) -> dict[str, str]:
    """What a package with several functions says of their classes."""
    found = {name: f.labels for name, f in functions.items() if f.labels}
    if len({*found.values()}) == 1:
        return {LABELS_KEY: json.dumps(next(iter(found.values())))}
    return {f"{LABELS_KEY}.{name}": json.dumps(labels) for name, labels in found.items()}
