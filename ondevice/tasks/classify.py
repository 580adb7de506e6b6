"""What a model's outputs mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from ..config.labels import check_labels
from ..cpu import blas
from ..cpu.threads import run
from ..errors import ConfigError
from ..image.preprocess import batches
from ..registry import model_spec

if TYPE_CHECKING:
    from ..config import ModelInfo
    from ..image.open import ImageLike
    from ..image.preprocess import OnError


@dataclass(frozen=True)
class Prediction:
    """One class with its probability."""

    label: str
    score: float
    index: int


def classify(
    model: nn.Module,
    images: ImageLike | Iterable[ImageLike],
    *,
    top_k: int = 5,
    size: int | None = None,
    batch_size: int = 16,
    on_error: OnError | None = None,
) -> list[list[Prediction]]:
    """The ``top_k`` most likely classes of each image, most likely first.

    ``images`` is what ``preprocess`` takes; of a generator, one batch is in memory at a time.
    Classes without a name are called by their index. A model with one logit has two classes:
    the sigmoid of the logit is the probability of the second. An image that cannot be used is
    left out and given to ``on_error``, by its position and the ImageError.

    Raises ConfigError if ``model`` has no classes; without ``on_error``, an ImageError that
    lists every image that cannot be used.
    """
    info = model.info
    if model_spec(info.model).text:
        raise ConfigError(f"{info.name} has no classes but those you name: ondevice zeroshot")
    if not info.config.num_classes:
        raise ConfigError(f"{info.name} has no classes: it was built with num_classes=0")
    check_labels(info.labels, info.config.num_classes, info.name)  # before any image is read
    blas.advise()
    found = []
    for x in batches(
        images, info.preprocess, size=size, batch_size=batch_size, on_error=on_error
    ):
        found += top_predictions(run(model, x), class_names(info), top_k)
    return found


def class_names(info: ModelInfo) -> tuple[str, ...]:
    """The name of each of ``probabilities``; nothing if the classes have none.

    Of one logit the names are two: "not X" and "X" where a model only names what it looks for.
    """
    labels = info.labels
    if info.config.num_classes == 1 and len(labels) == 1:
        return (f"not {labels[0]}", labels[0])
    return labels


def probabilities(logits: mx.array) -> mx.array:
    """(B, classes) softmax of (B, classes); of one logit (B, 2): 1 - sigmoid, sigmoid."""
    if logits.shape[-1] > 1:
        return mx.softmax(logits, axis=-1)
    return mx.concatenate([mx.sigmoid(-logits), mx.sigmoid(logits)], axis=-1)


def decisions(logits: Any) -> Any:
    """(B,) class of each row of (B, classes) in NumPy; of one logit, whether it is positive."""
    return logits.argmax(axis=-1) if logits.shape[-1] > 1 else logits[..., 0] > 0


def top_predictions(
    logits: mx.array, labels: tuple[str, ...], top_k: int
) -> list[list[Prediction]]:
    """The ``top_k`` most likely classes of each row of logits (B, classes), most likely first.

    Raises ConfigError if there are labels, but not one for each class.
    """
    scores = probabilities(logits.astype(mx.float32))
    check_labels(labels, scores.shape[-1], "the model's scores")
    order = mx.argsort(-scores, axis=-1)[:, :top_k]
    best = mx.take_along_axis(scores, order, axis=-1)
    indices: Any = order.tolist()
    values: Any = best.tolist()
    return [
        [
            Prediction(labels[i] if labels else f"class {i}", score, i)
            for i, score in zip(*row, strict=True)
        ]
        for row in zip(indices, values, strict=True)
    ]
