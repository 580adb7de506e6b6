"""All that is read before a segmenter's training begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.nn as nn

from ...errors import ConfigError
from .augment import MaskAugment
from .dataset import MaskDataset, read_mask_dataset
from .loss import pixel_cross_entropy
from .start import SEGMENTERS
from .task import Segmentation

if TYPE_CHECKING:
    from ..train.options import Options
    from ..train.trainer import Settings


def prepare(
    images: Path, options: Options, settings: Settings
) -> tuple[nn.Module, MaskDataset, MaskAugment, Segmentation]:
    """The model, the images, how they are changed, and the task.

    Raises ConfigError with what is wrong, UnknownModelError, WeightsError, HubError.
    """
    SEGMENTERS.check(options.model, options.backbone, options.size)
    augment = options.augment or MaskAugment()
    if not isinstance(augment, MaskAugment):
        raise ConfigError(f"{type(augment).__name__} changes no masks: use MaskAugment")
    dataset = read_mask_dataset(images, val_share=options.val_share, seed=settings.seed)
    model = SEGMENTERS.new(
        options.model,
        dataset.classes,
        backbone=options.backbone,
        size=options.size,
        pretrained=options.pretrained,
        seed=settings.seed,
    )
    spec, loss = model.info.preprocess, options.loss or pixel_cross_entropy
    task = Segmentation(dataset, spec, loss, options.workers)
    return model, dataset, replace(augment, flip=augment.flip and options.flip), task
