"""What every detector offers: boxes with a score for each class, and a signature."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..signature import Input, Output, Signature
from .image_model import check_image


class Detector(nn.Module):
    """Abstract: a family gives ``detect``.

    Of two boxes of one class that overlap by more than ``max_overlap`` the less sure one has
    to be dropped; 1 where a model gives each object once.
    """

    max_overlap = 1.0

    def detect(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(B, H, W, 3) image to (B, N, classes) logits and (B, N, 4) boxes: centre x and y,
        width and height, as parts of the image."""
        raise NotImplementedError

    def __call__(self, x: mx.array) -> dict[str, mx.array]:
        """(B, H, W, 3) image to ``confidence`` (B, N, classes) from 0 to 1 and ``coordinates``
        (B, N, 4), in no order.

        Raises ConfigError for an image that does not fit.
        """
        check_image(x, self.config.stride)
        logits, boxes = self.detect(x)
        return {"confidence": mx.sigmoid(logits), "coordinates": boxes}

    @property
    def signature(self) -> Signature:
        """One image in; the two outputs that Vision knows of detectors out."""
        spec = self.info.preprocess
        image = Input("image", "image", (1, spec.size, spec.size, 3), contract=spec)
        labels = self.info.labels
        outputs = (
            Output(
                "confidence",
                "scores",
                item="confidence",
                labels=labels,
                text="The score of each class of each box, from 0 to 1; keep what reaches a "
                f"threshold such as 0.5{_suppression(self.max_overlap)}",
            ),
            Output(
                "coordinates",
                "boxes",
                item="coordinates",
                labels=labels,
                max_overlap=self.max_overlap,
                text="Boxes as centre x, centre y, width and height, parts of the image",
            ),
        )
        names = tuple(output.name for output in outputs)
        return Signature((image,), outputs, names, self.info.name)


def _suppression(max_overlap: float) -> str:
    """What to do with boxes that reach a threshold."""
    if max_overlap == 1:
        return ": no suppression is needed"
    return (
        ", and of two boxes of one class whose intersection over union is above "
        f"{max_overlap:g} the surer one"
    )
