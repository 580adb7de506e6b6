"""Training of classifiers: soft targets, mixed images, top-1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...config import Preprocess
from .augment import Augment, mix
from .dataset import Dataset
from .loader import Batch, Loader
from .metrics import calibration_error, fit_temperature, log_softmax, top_k
from .predict import predictions
from .task import Task
from .teacher import Teacher
from .trainer import Loss, Settings, soft_cross_entropy

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

BATCH = 32


@dataclass
class Classification(Task):
    """Of the ``dataset``'s classes, or of what a ``teacher`` says of its images."""

    dataset: Dataset
    settings: Settings
    augment: Augment
    spec: Preprocess
    loss_function: Loss = soft_cross_entropy
    teacher: Teacher | None = None
    workers: int | None = None
    metric = "top1"

    @property
    def views(self) -> int:  # type: ignore[override]
        return self.teacher.views if self.teacher else 0

    def loss(self, outputs: Any, targets: Any) -> mx.array:
        """Of (B, classes) logits and targets."""
        return self.loss_function(outputs, targets)

    def batch(self, batch: Batch, epoch: int, rng: np.random.Generator) -> tuple[Array, Any]:
        """Targets are (B, classes), from the labels or the teacher, perhaps mixed in pairs."""
        weights, labels = class_weights(self.dataset, self.settings), np.array(batch.labels)
        if self.teacher:
            targets = self.teacher.targets(epoch, batch.positions)
        else:
            classes, smoothing = len(weights), self.settings.label_smoothing
            targets = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
        pixels, targets = batch.pixels, targets * weights[labels, None]
        if len(pixels) > 1 and rng.random() < self.augment.mix:
            pixels, targets = mix(pixels, targets, rng)
        return pixels, targets.astype(np.float32)

    def validate(self, network: nn.Module, val: Loader) -> tuple[float, float]:
        """Cross entropy, and top-1."""
        logits, positions = predictions(network, val, val.spec)
        labels = np.array([val.samples[i].label for i in positions])
        logs = log_softmax(logits)
        return -float(logs[np.arange(len(labels)), labels].mean()), top_k(logits, labels, 1)

    def measure(self, network: nn.Module, split: str) -> dict[str, Any]:
        """Accuracy, calibration, and of the validation the temperature that calibrates."""
        logits, labels = self._scores(network, split)
        found = {
            f"{split}_images": len(labels),
            f"{split}_top1": round(100 * top_k(logits, labels, 1), 2),
            f"{split}_ece": round(calibration_error(logits, labels), 4),
        }
        if split == "val":
            found["temperature"] = round(fit_temperature(logits, labels), 4)
        return found

    def measure_rounded(self, network: nn.Module, split: str) -> dict[str, Any]:
        """Accuracy of the model as it will be rounded."""
        rounded = top_k(*self._scores(network, split), 1)
        return {f"{split}_top1_rounded": round(100 * rounded, 2)}

    def _scores(self, network: nn.Module, split: str) -> tuple[Array, Array]:
        """(N, classes) logits and (N,) classes of the images of a split."""
        samples = self.dataset.splits[split]
        loader = Loader(samples, self.spec, batch_size=BATCH, workers=self.workers)
        logits, positions = predictions(network, loader, self.spec)
        return logits, np.array([samples[i].label for i in positions])


def class_weights(dataset: Dataset, settings: Settings) -> Array:
    """(classes,) of mean 1 over the images: with ``balance`` the rarer the heavier."""
    counts = np.array(dataset.counts())
    return counts.sum() / (len(counts) * counts) if settings.balance else np.ones(len(counts))
