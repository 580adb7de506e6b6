"""The segmenter that training starts from: a known one, or a new one on a trained backbone."""

from __future__ import annotations

from ...nn.segmentation import Segmenter
from ..train.on_backbone import Kind

SEGMENTERS = Kind("segmenter", Segmenter, "light_fpn_*", scores=r"^decode_head\.classifier\.")
