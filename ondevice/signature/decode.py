"""What a model's outputs mean to a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from ..config.labels import check_labels

if TYPE_CHECKING:
    from . import Output

TOP = 5  # classes


@dataclass(frozen=True)
class Prediction:
    """One class with its probability."""

    label: str
    score: float
    index: int


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


def _logits(output: Output, value: mx.array) -> list[list[Prediction]]:
    return top_predictions(value, output.labels, TOP)


def _array(output: Output, value: mx.array) -> Any:
    import numpy as np

    return np.array(value)


# By the output's kind; all others are arrays.
_DECODERS: dict[str, Callable[[Output, mx.array], Any]] = {"logits": _logits}


def decode(output: Output, value: Any) -> Any:
    """One output as a person reads it, of an array of whatever type."""
    decoder = _DECODERS.get(output.kind, _array)
    return decoder(output, mx.array(value).astype(mx.float32))
