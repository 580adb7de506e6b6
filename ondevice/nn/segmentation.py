"""What every model offers that names the class of each pixel: masks, and a signature."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..image.colours import palette
from ..signature import Input, Output, Signature
from .resize import bilinear

SCALE = 4  # pixels a side for each of the scores


def likeliest(scores: mx.array) -> mx.array:
    """(B, H / 4, W / 4, classes) scores to the (B, H, W, 1) likeliest class of each pixel,
    int32.

    Scores are interpolated before they are compared; of equal ones the first wins.
    """
    _, height, width, _ = scores.shape
    scores = bilinear(scores, (SCALE * height, SCALE * width))
    return mx.argmax(scores, axis=-1, keepdims=True).astype(mx.int32)


class Segmenter(nn.Module):
    """Abstract: a family gives the scores of a call."""

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, H / 4, W / 4, classes) scores before the softmax.

        Raises ConfigError for an image that does not fit.
        """
        raise NotImplementedError

    def classes(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to the (B, H, W, 1) ``likeliest`` class of each pixel, int32."""
        return likeliest(self(x))

    def grey(self, x: mx.array) -> mx.array:
        """The same as float numbers."""
        return self.classes(x).astype(mx.float32)

    def colours(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to the (B, H, W, 3) colours of ``palette``, from 0 to 255."""
        table = mx.array(palette(self.config.num_classes), mx.float32).T
        return mx.take(table, self.classes(x)[..., 0], axis=1).transpose(1, 2, 3, 0)

    @property
    def signature(self) -> Signature:
        """One image in; classes out, as an array, an 8-bit image or in colours; or scores."""
        spec, labels = self.info.preprocess, self.info.labels
        image = Input("image", "image", (1, spec.size, spec.size, 3), contract=spec)
        said = "The number of each pixel's class"
        maps = {"axes": "NHWC", "labels": labels}
        outputs = (
            Output("mask", "mask", "classes", text=f"{said}, int32", **maps),
            Output("mask_image", "mask", "grey", pixels="grey", text=f"{said}, 8 bits", **maps),
            Output(
                "mask_colours",
                "image",
                "colours",
                axes="NHWC",
                pixels="rgb",
                text="The colour of each pixel's class",
            ),
            Output(
                "scores",
                "map",
                axes="NHWC",
                text="Scores of each class, at a quarter of the size",
            ),
        )
        return Signature((image,), outputs, ("mask",), self.info.name)
