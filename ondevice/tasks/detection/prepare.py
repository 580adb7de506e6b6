"""All that is read before a detector's training begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.nn as nn

from ...errors import ConfigError
from .augment import BoxAugment
from .dataset import BoxDataset, read_boxes
from .loss import detection_loss
from .start import DETECTORS
from .task import Detection

if TYPE_CHECKING:
    from ..train.options import Options
    from ..train.trainer import Settings


def prepare(
    images: Path, options: Options, settings: Settings
) -> tuple[nn.Module, BoxDataset, BoxAugment, Detection]:
    """The model, the images, how they are changed, and the task.

    Raises ConfigError with what is wrong, UnknownModelError, WeightsError, HubError.
    """
    DETECTORS.check(options.model, options.backbone, options.size)
    augment = options.augment or BoxAugment()
    if not isinstance(augment, BoxAugment):
        raise ConfigError(f"{type(augment).__name__} changes no boxes: use BoxAugment")
    dataset = read_boxes(images, val_share=options.val_share, seed=settings.seed)
    model = DETECTORS.new(
        options.model,
        dataset.classes,
        backbone=options.backbone,
        size=options.size,
        pretrained=options.pretrained,
        seed=settings.seed,
    )
    spec, loss = model.info.preprocess, options.loss or detection_loss
    task = Detection(dataset, spec, loss, options.workers)
    return model, dataset, replace(augment, flip=augment.flip and options.flip), task
