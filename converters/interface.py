"""What crosses the border of a package: named inputs and outputs, and how they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from ondevice.errors import ConfigError
from ondevice.fuse import fuse
from ondevice.labels import with_labels
from ondevice.layers import ImageModel
from ondevice.models.clip_text import TextTower, example_tokens
from ondevice.preprocess import normalize

from .passes.layout import NCHW, Order

Fn = Callable[..., Any]


@dataclass(frozen=True)
class Interface:
    """What is traced, and how its inputs and outputs are called and laid out.

    ``fn`` calls ``model``, whose parameters get to keep their names.
    ``orders`` gives the names that cross the border channels-first; the others keep the
    order that MLX has. ``image`` names the input that is a picture, levels 0-255.
    """

    model: nn.Module
    fn: Fn
    inputs: tuple[mx.array, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    orders: Mapping[str, Order] = field(default_factory=dict)
    image: str = ""
    labels: tuple[str, ...] = ()
    described: Mapping[str, str] = field(default_factory=dict)  # a line for each output


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
    outputs: Sequence[str] = ("logits",),
    size: int | None = None,
    fused: bool = True,
) -> Interface:
    """A picture in, the chosen ``outputs`` out; labels beside logits if the model has any.

    Raises ConfigError for an output that does not exist.
    """
    if unknown := [name for name in outputs if name not in OUTPUTS]:
        raise ConfigError(f"no output {', '.join(unknown)}; there are {', '.join(OUTPUTS)}")
    spec = model.info.preprocess if size is None else replace(model.info.preprocess, size=size)
    info = with_labels(model.info)
    model = cast("ImageModel", fuse(model)) if fused else model
    wanted = [OUTPUTS[name] for name in dict.fromkeys(outputs)]
    labels = info.labels if "logits" in outputs else ()

    def fn(levels: mx.array) -> list[mx.array]:
        x = normalize(levels, spec)
        results = _compute([call for call, _ in wanted], model, x)
        return [mx.softmax(results[0], axis=-1), *results] if labels else results

    names, described = _names(model, dict.fromkeys(outputs))
    if labels:
        names = ["probabilities", *names]
    orders = {name: NCHW for name in names if name.startswith("features")}
    return Interface(
        model=model,
        fn=fn,
        inputs=(mx.zeros((1, spec.size, spec.size, 3)),),
        input_names=("image",),
        output_names=tuple(names),
        orders={"image": NCHW, **orders},
        image="image",
        labels=labels,
        described=described,
    )


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
    example_inputs: mx.array | Sequence[mx.array],
    *,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    outputs: int = 1,
) -> Interface:
    """Arrays in, arrays out, shaped as MLX has them (images are NHWC)."""
    arrays = (
        (example_inputs,) if isinstance(example_inputs, mx.array) else tuple(example_inputs)
    )
    return Interface(
        model=module,
        fn=module,
        inputs=arrays,
        input_names=tuple(input_names) or _numbered("input", len(arrays)),
        output_names=tuple(output_names) or _numbered("output", outputs),
    )


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}_{i}" for i in range(count))
