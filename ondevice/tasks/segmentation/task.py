"""Training of segmenters: masks beside images, the class of every pixel, mIoU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...config import Preprocess
from ...cpu.threads import run_each
from ...errors import ImageError
from ...image.preprocess import normalize
from ...nn.segmentation import SCALE, likeliest
from ...signature.decode import Frame
from ..train.loader import Batch, Loader
from ..train.task import Task
from ..train.trainer import Loss
from .augment import seen
from .dataset import MaskDataset
from .evaluate import Counts, counted
from .loss import cells, pixel_cross_entropy

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

BATCH = 16
MEASURED = {"miou": "mIoU", "pixel_accuracy": "pixel_accuracy"}


@dataclass
class Segmentation(Task):
    """Of the classes of pixels in ``dataset``."""

    dataset: MaskDataset
    spec: Preprocess
    loss_function: Loss = pixel_cross_entropy
    workers: int | None = None
    metric = "miou"

    def loss(self, outputs: Any, targets: Any) -> mx.array:
        """Of (B, h, w, classes) scores, and how many pixels of each class are in each cell."""
        return self.loss_function(outputs, targets)

    def batch(self, batch: Batch, epoch: int, rng: np.random.Generator) -> tuple[Array, Any]:
        """Targets are the ``cells`` of the masks."""
        return batch.pixels, np.stack([self._cells(there) for there in batch.labels])

    def validate(self, network: nn.Module, val: Loader) -> tuple[float, float]:
        """The loss, and mIoU in the photos' own pixels."""
        losses, counts = self._measured(network, val)
        return float(np.mean(losses)), counts.figures["mIoU"]

    def measure(self, network: nn.Module, split: str) -> dict[str, Any]:
        """mIoU, and the share of pixels that are right, in percent."""
        samples = self.dataset.splits[split]
        loader = Loader(samples, self.spec, batch_size=BATCH, workers=self.workers)
        losses, counts = self._measured(network, loader)
        figures = counts.figures
        named = {f"{split}_{k}": round(100 * figures[v], 2) for k, v in MEASURED.items()}
        return {f"{split}_images": len(losses), **named}

    def _cells(self, there: Array) -> Array:
        return cells(there, SCALE, len(self.dataset.classes))

    def _measured(self, network: nn.Module, loader: Loader) -> tuple[list[float], Counts]:
        """The loss of each image, and its pixels. Raises ImageError if no image can be used."""
        losses, rows = [], []
        for there, scores in self._found(network, loader):
            frame = Frame.of((there.shape[1], there.shape[0]), loader.spec)
            target = self._cells(seen(there, frame.window, loader.spec.size))
            losses.append(float(np.array(self.loss(scores, mx.array(target[None])))))
            said = frame.map(np.array(likeliest(scores))[0, ..., 0], smooth=False)
            rows.append(counted(there, said, len(self.dataset.classes)))
        if not rows:
            raise ImageError("none of the images can be used")
        return losses, Counts(*map(np.stack, zip(*rows, strict=True)))

    def _found(self, network: nn.Module, loader: Loader) -> Iterator[tuple[Array, mx.array]]:
        """The classes in each mask that can be read, and (1, h, w, classes) scores."""
        batches = ((batch, batch.pixels) for batch in loader.epoch())
        for batch, scores in run_each(lambda x: network(normalize(x, loader.spec)), batches):
            for position, label, own in zip(batch.positions, batch.labels, scores, strict=True):
                try:
                    there = label.classes()
                except ImageError as error:
                    loader.failed[int(position)] = str(error)
                    continue
                yield there, mx.array(own[None])
