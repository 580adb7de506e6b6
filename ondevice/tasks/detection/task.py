"""Training of detectors: boxes beside images, candidates matched with objects, AP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...config import Preprocess
from ...signature.decode import Frame, in_pixels
from ..train.loader import Batch, Loader
from ..train.predict import predictions
from ..train.task import Task
from ..train.trainer import Loss
from .augment import Objects
from .average_precision import figures, match
from .dataset import BoxDataset
from .evaluate import surest
from .loss import detection_loss
from .matching import NONE

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

BATCH = 32
MEASURED = ("AP", "AP50", "AP75")


@dataclass
class Detection(Task):
    """Of the objects in ``dataset``."""

    dataset: BoxDataset
    spec: Preprocess
    loss_function: Loss = detection_loss
    workers: int | None = None
    metric = "ap"
    compiled = False  # candidates are matched in NumPy, between the two halves of a step

    def outputs(self, network: nn.Module, x: mx.array) -> Any:
        """What is found by every layer."""
        return network.candidates(x)

    def loss(self, outputs: Any, targets: Any) -> mx.array:
        """Of all layers."""
        return self.loss_function(outputs, targets)

    def batch(self, batch: Batch, epoch: int, rng: np.random.Generator) -> tuple[Array, Any]:
        """Targets are the ``padded`` objects."""
        return batch.pixels, padded(batch.labels)

    def validate(self, network: nn.Module, val: Loader) -> tuple[float, float]:
        """The loss of the last layer, and AP."""
        logits, boxes, positions = self._found(network, val)
        targets = padded([val.samples[i].label for i in positions])
        loss = detection_loss([(mx.array(logits), mx.array(boxes))], targets)
        paths = [val.samples[i].path for i in positions]
        return float(np.array(loss)), self._precision(logits, boxes, paths)["AP"] / 100

    def measure(self, network: nn.Module, split: str) -> dict[str, Any]:
        """Average precision in percent, at all overlaps and at two."""
        samples = self.dataset.splits[split]
        loader = Loader(samples, self.spec, batch_size=BATCH, workers=self.workers)
        logits, boxes, positions = self._found(network, loader)
        found = self._precision(logits, boxes, [samples[i].path for i in positions])
        named = {f"{split}_{name.lower()}": round(value, 2) for name, value in found.items()}
        return {f"{split}_images": len(positions), **named}

    def _found(self, network: nn.Module, loader: Loader) -> tuple[Array, Array, Array]:
        """(N, Q, classes) logits, (N, Q, 4) boxes, and (N,) positions of what can be read."""

        def joined(x: mx.array) -> mx.array:
            return mx.concatenate(network.detect(x), axis=-1)

        values, positions = predictions(joined, loader, loader.spec)
        return values[..., :-4], values[..., -4:], positions

    def _precision(self, logits: Array, boxes: Array, paths: Sequence[str]) -> dict[str, float]:
        """In percent; 0 where no object is to be found."""
        truth = [self.dataset.truth[path] for path in paths]
        scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
        rows, order = zip(boxes, scores, paths, strict=True), np.arange(scores.shape[-1])
        found = [surest(in_pixels(b, self._frame(path)), s, order) for b, s, path in rows]
        all_figures = figures(match(truth, found, len(self.dataset.classes)))
        return {name: 100 * (all_figures[name] or 0.0) for name in MEASURED}

    def _frame(self, path: str) -> Frame:
        return Frame.of(self.dataset.sizes[path], self.spec)


def padded(labels: Sequence[Objects]) -> dict[str, Array]:
    """``boxes`` (B, M, 4) and ``classes`` (B, M), ``NONE`` where an image has fewer than M."""
    most = max(1, *map(len, labels)) if labels else 1
    boxes = np.zeros((len(labels), most, 4), np.float32)
    classes = np.full((len(labels), most), NONE, np.int32)
    for row, objects in enumerate(labels):
        for i, (number, *box) in enumerate(objects):
            boxes[row, i], classes[row, i] = box, number
    return {"boxes": boxes, "classes": classes}
