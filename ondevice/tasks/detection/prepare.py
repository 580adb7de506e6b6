"""What ``train --task detect`` is made of."""

from __future__ import annotations

from ..train.on_backbone import Parts
from .augment import BoxAugment
from .dataset import read_boxes
from .loss import detection_loss
from .start import DETECTORS
from .task import Detection

PARTS = Parts(DETECTORS, "boxes", read_boxes, BoxAugment, Detection, detection_loss)
