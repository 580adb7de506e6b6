"""The classes of images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, SupportsIndex

import mlx.nn as nn

from ..config.labels import check_labels
from ..cpu import blas
from ..cpu.threads import run
from ..errors import ConfigError
from ..image.preprocess import batches
from ..registry import model_spec
from ..signature import check_is_ours
from ..signature.decode import Prediction as Prediction, top_predictions

if TYPE_CHECKING:
    from ..image.open import ImageLike
    from ..image.preprocess import OnError


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

    Raises ConfigError if ``model`` has no classes, or for an impossible ``top_k``, ``size`` or
    ``batch_size``; without ``on_error``, an ImageError that lists every image that cannot be
    used.
    """
    if not (isinstance(top_k, SupportsIndex) and top_k >= 1):
        raise ConfigError(f"top_k is a number of classes, 1 or more; given {top_k!r}")
    check_is_ours(model)
    info = model.info
    if model_spec(info.model).text:
        raise ConfigError(f"{info.name} has no classes but those you name: ondevice zeroshot")
    if not info.config.num_classes:
        given = ", ".join(model.signature.default_outputs)
        raise ConfigError(f"{info.name} has no classes (num_classes=0): it gives {given}")
    if "logits" not in (kinds := model.signature.kinds):
        raise ConfigError(f"{info.name} gives no classes of an image: it gives {kinds}")
    check_labels(info.labels, info.config.num_classes, info.name)  # before any image is read
    blas.advise()
    found = []
    for x in batches(
        images, info.preprocess, size=size, batch_size=batch_size, on_error=on_error
    ):
        found += top_predictions(run(model, x), info.class_names, top_k)
    return found
