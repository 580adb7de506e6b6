"""What every detector offers: boxes with a score for each class, and a signature."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from ..config.labels import check_labels
from ..signature import OBJECTS, Input, Output, Signature
from .image_model import check_image

# With some numbers of classes Core ML misreads the scores that an ML program hands to the stage
# which suppresses boxes: apple/coremltools#2158, #2445. With multiples of 80, as COCO has, it
# does not, so that others fill rows up to those: ultralytics/ultralytics#22310.
COLUMNS = 80


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

    def objects(self, x: mx.array) -> dict[str, mx.array]:
        """(1, H, W, 3) image to ``raw_confidence`` (N, columns) and ``raw_coordinates`` (N, 4),
        as the stage of a package takes them that Vision reads objects from.

        Each box has the score of its surest class alone: Vision takes the sum of a row for how
        sure an object is. Columns are the classes, and more that are 0: see ``COLUMNS``.

        Raises ConfigError for an image or labels that do not fit.
        """
        check_image(x, self.config.stride)
        logits, boxes = (found[0] for found in self.detect(x))
        classes = logits.shape[-1]
        check_labels(self.info.labels, classes, "the model's boxes")
        columns = mx.arange(-(-classes // COLUMNS) * COLUMNS)
        is_surest = mx.argmax(logits, axis=-1, keepdims=True) == columns
        scores = mx.sigmoid(logits.max(axis=-1, keepdims=True))
        return {"raw_confidence": scores * is_surest, "raw_coordinates": boxes}

    @property
    def signature(self) -> Signature:
        """One image in; scores and boxes out, as arrays or, in the group ``OBJECTS``, for
        Vision."""
        spec = self.info.preprocess
        image = Input("image", "image", (1, spec.size, spec.size, 3), contract=spec)
        labels = self.info.labels
        arrays = (
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
        outputs = (*arrays, *map(_for_vision, arrays))
        names = tuple(output.name for output in arrays)
        return Signature((image,), outputs, names, self.info.name)


def _suppression(max_overlap: float) -> str:
    """What to do with boxes that reach a threshold."""
    if max_overlap == 1:
        return ": no suppression is needed"
    return (
        ", and of two boxes of one class whose intersection over union is above "
        f"{max_overlap:g} the surer one"
    )


def _for_vision(output: Output) -> Output:
    """The same as ``Detector.objects`` gives it, before boxes are suppressed."""
    name = f"raw_{output.name}"
    return replace(output, name=name, method="objects", item=name, group=OBJECTS, text="")
