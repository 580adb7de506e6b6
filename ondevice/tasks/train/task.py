"""What a training has to know of a kind of model: classifiers are one, detectors another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from .loader import Batch, Loader

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Task:
    """Abstract: targets, a loss, and how a validation is measured.

    ``metric`` names its score; ``compiled`` is whether MLX may compile the loss; ``views`` is
    after how many epochs images are seen again as before, 0 for never.
    """

    metric = ""
    compiled = True
    views = 0

    def outputs(self, network: nn.Module, x: mx.array) -> Any:
        """What the loss compares: ``network(x)`` unless a task says otherwise."""
        return network(x)

    def loss(self, outputs: Any, targets: Any) -> mx.array:
        """A number, the mean over the images of a batch."""
        raise NotImplementedError

    def batch(self, batch: Batch, epoch: int, rng: np.random.Generator) -> tuple[Array, Any]:
        """Pixel values and targets, a tree of arrays that each have a row an image."""
        raise NotImplementedError

    def validate(self, network: nn.Module, val: Loader) -> tuple[float, float]:
        """The loss, and a score from 0 to 1: the larger the better."""
        raise NotImplementedError

    def measure_rounded(self, network: nn.Module, split: str) -> dict[str, Any]:
        """The same of the model as it will be rounded, if training rounds."""
        return {}

    def measure(self, network: nn.Module, split: str) -> dict[str, Any]:
        """What is said of the saved model, of the images of a split."""
        raise NotImplementedError
