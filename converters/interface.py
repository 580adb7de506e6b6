"""What crosses the border of a package: named inputs and outputs, and how they lie."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice.config import Preprocess
from ondevice.config.labels import check_labels
from ondevice.errors import ConfigError
from ondevice.image.preprocess import normalize
from ondevice.models.clip_text import TextTower, example_tokens
from ondevice.nn.fuse import fuse
from ondevice.nn.layers import ImageModel
from ondevice.tasks.classify import class_names, probabilities

from .graph.graph import Array
from .graph.passes.layout import NCHW, Order

Fn = Callable[..., Any]
Step = Callable[[mx.array], mx.array]


@dataclass(frozen=True)
class Picture:
    """How a picture goes in: what is done to its levels outside, and what by the package.

    ``border`` is the type of the array that goes in, and of all that comes out; without one
    it goes in as Core ML's own kind of image. ``contract`` is for the package's metadata.
    """

    name: str
    described: str
    contract: Mapping[str, str]
    outside: Step = lambda x: x
    inside: Step = lambda x: x
    border: str = ""

    def given(self, levels: Array) -> Array:
        """Levels 0-255 of shape (B, H, W, 3) as the numbers that go in, channels last."""
        return np.array(self.outside(mx.array(levels.astype(np.float32))))


@dataclass(frozen=True)
class Interface:
    """What is traced, and how its inputs and outputs are called and laid out.

    ``fn`` calls ``model``, whose parameters get to keep their names.
    ``orders`` gives the names that cross the border channels-first; the others keep the
    order that MLX has. ``picture`` says how the one input is made of a picture, if it is.
    """

    model: nn.Module
    fn: Fn
    inputs: tuple[mx.array, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    orders: Mapping[str, Order] = field(default_factory=dict)
    picture: Picture | None = None
    labels: tuple[str, ...] = ()
    described: Mapping[str, str] = field(default_factory=dict)  # a line for each output

    @property
    def border(self) -> str:
        """The type of the numbers that go in and come out; "" is the package's precision."""
        return self.picture.border if self.picture else ""


def _pixels(spec: Preprocess) -> Picture:
    return Picture(
        name="image",
        described="RGB picture, resized and cropped",
        contract={"ondevice.input": "image"},
        inside=lambda levels: normalize(levels, spec),
    )


def _numbers(spec: Preprocess) -> Picture:
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (spec.mean, spec.std))
    shape = f"(1, 3, {spec.size}, {spec.size})"
    return Picture(
        name="images",
        described=f"RGB picture, {shape}, as (levels / 255 - [{mean}]) / [{std}]",
        contract={
            "ondevice.input": "array",
            "ondevice.layout": "NCHW",
            "ondevice.colors": "RGB",
        },
        outside=lambda levels: normalize(levels, spec),
        border="float32",
    )


# In what form a package of ours can take a picture, given the model's preprocessing.
INPUTS: dict[str, Callable[[Preprocess], Picture]] = {"image": _pixels, "array": _numbers}

# What a package of ours can give: the function of model and image, and a line about it.
OUTPUTS: dict[str, tuple[Callable[[Any, mx.array], Any], str]] = {
    "logits": (lambda model, x: model(x), "Scores before the softmax"),
    "embedding": (lambda model, x: model.pooled(x), "Pooled feature vector of the image"),
    "features": (
        lambda model, x: model.features(x, stages=tuple(range(len(model.config.feature_info)))),
        "Feature map of one stage, (1, channels, height, width)",
    ),
    "tokens": (
        lambda model, x: _tokens(model.features(x)),
        "Last feature map, row by row, as (1, tokens, channels)",
    ),
    "image_features": (
        lambda model, x: _tokens(model.features(x)),
        "Tokens of the image, (1, tokens, channels), called as in Apple's FastVLM app",
    ),
    "projected": (
        lambda model, x: _projected(model, x),
        "Tokens of the image as the language model reads them, (1, tokens, dim)",
    ),
}


def _tokens(x: mx.array) -> mx.array:
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _projected(model: Any, x: mx.array) -> mx.array:
    if "projector" not in model:
        raise ConfigError(f"{model.info.name} has no projector; take a whole FastVLM")
    return model.projector(_tokens(model.features(x)))


def image_interface(
    model: ImageModel,
    *,
    input: str = "image",
    outputs: Sequence[str] = ("logits",),
    size: int | None = None,
    fused: bool = True,
) -> Interface:
    """A picture in, the chosen ``outputs`` out; labels beside logits if the model has any.

    Raises ConfigError for an input or output that does not exist.
    """
    _check_known("input", [input], INPUTS)
    _check_known("output", outputs, OUTPUTS)
    spec = model.info.preprocess if size is None else replace(model.info.preprocess, size=size)
    picture = INPUTS[input](spec)
    model = cast("ImageModel", fuse(model)) if fused else model
    wanted = [OUTPUTS[name] for name in dict.fromkeys(outputs)]
    x = mx.zeros((1, spec.size, spec.size, 3))
    labels = class_names(model.info) if "logits" in outputs else ()
    if labels:
        check_labels(model.info.labels, model(x).shape[-1], model.info.name)

    def fn(given: mx.array) -> list[mx.array]:
        results = _compute([call for call, _ in wanted], model, picture.inside(given))
        return [probabilities(results[0]), *results] if labels else results

    names, described = _names(model, dict.fromkeys(outputs))
    if labels:
        names = ["probabilities", *names]
    orders = {name: NCHW for name in names if name.startswith("features")}
    return Interface(
        model=model,
        fn=fn,
        inputs=(x,),
        input_names=(picture.name,),
        output_names=tuple(names),
        orders={picture.name: NCHW, **orders},
        picture=picture,
        labels=labels,
        described=described,
    )


def _check_known(what: str, names: Sequence[str], known: Collection[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")


def _compute(calls: Sequence[Any], model: ImageModel, x: mx.array) -> list[mx.array]:
    results: list[mx.array] = []
    for call in calls:
        result = call(model, x)
        results += result if isinstance(result, list) else [result]
    return results


def _names(model: ImageModel, outputs: Any) -> tuple[list[str], dict[str, str]]:
    """Output names, one a stage for features, and what each is."""
    names: dict[str, str] = {}
    for output in outputs:
        line = OUTPUTS[output][1]
        if output == "features":
            for stage, channels, stride in model.config.feature_info:
                names[f"features_{stage}"] = f"{line}: {channels} channels at stride {stride}"
        else:
            names[output] = line
    return list(names), names


def text_interface(model: TextTower) -> Interface:
    """A text's token numbers in, as the model takes them, its unit vector out."""
    model = cast("TextTower", fuse(model))
    return Interface(
        model=model,
        fn=model,
        inputs=(example_tokens(model.config),),
        input_names=("text",),
        output_names=("embedding",),
        described={"embedding": "Unit vector of the text in the space shared with images"},
    )


def array_interface(
    module: nn.Module,
    example_inputs: mx.array | Sequence[mx.array] | Mapping[str, mx.array],
    *,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> Interface:
    """Arrays in, arrays out, shaped as MLX has them (images are NHWC). Raises ConfigError."""
    if not isinstance(module, nn.Module):
        name = getattr(module, "__name__", type(module).__name__)
        raise ConfigError(f"{name} is no mlx.nn.Module; call it in the __call__ of one")
    given: Any = example_inputs
    by_keyword = dict(given) if isinstance(given, Mapping) else {}
    is_one = isinstance(given, mx.array | np.ndarray | np.generic | int | float)
    listed = by_keyword.values() or ([given] if is_one else given)
    arrays = tuple(_computable(mx.array(x)) for x in listed)
    keywords = dict(zip(by_keyword, arrays, strict=False))
    try:
        inspect.signature(type(module).__call__).bind(
            module, *(() if keywords else arrays), **keywords
        )
    except TypeError as error:
        raise ConfigError(
            f"{type(module).__name__} is not called with {len(arrays)} arrays: {error}"
        ) from error
    return Interface(
        model=module,
        fn=(lambda *xs: module(**dict(zip(keywords, xs, strict=True)))) if keywords else module,
        inputs=arrays,
        input_names=tuple(input_names or keywords) or _numbered("input", len(arrays)),
        output_names=tuple(output_names),
    )


def _computable(x: mx.array) -> mx.array:
    """The array in a type that NumPy has."""
    return x.astype(mx.float32) if x.dtype == mx.bfloat16 else x


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}_{i}" for i in range(count))
