"""What ``train --task segment`` is made of."""

from __future__ import annotations

from ..train.on_backbone import Parts
from .augment import MaskAugment
from .dataset import read_mask_dataset
from .loss import pixel_cross_entropy
from .start import SEGMENTERS
from .task import Segmentation

PARTS = Parts(
    SEGMENTERS, "masks", read_mask_dataset, MaskAugment, Segmentation, pixel_cross_entropy
)
