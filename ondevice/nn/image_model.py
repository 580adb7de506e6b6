"""What every image model offers: maps, an embedding, tokens, and a signature."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo
from ..errors import ConfigError
from ..signature import Input, Output, Signature

_IMAGE_OUTPUTS = (
    Output(
        "embedding", "embedding", method="pooled", text="Pooled feature vector of the image"
    ),
    Output(
        "tokens",
        "tokens",
        method="map_tokens",
        text="Last feature map, row by row, as (1, tokens, channels)",
    ),
    Output(
        "image_features",
        "tokens",
        method="map_tokens",
        text="Tokens of the image, (1, tokens, channels), called as in Apple's FastVLM app",
    ),
)
_PROJECTED = Output(
    "projected",
    "tokens",
    method="projected",
    text="Tokens of the image as the language model reads them, (1, tokens, dim)",
)


def _stage_output(stage: FeatureInfo) -> Output:
    return Output(
        f"features_{stage.stage}",
        "map",
        method="pyramid",
        item=stage.stage,
        axes="NHWC",
        group="features",
        text="Feature map of one stage, (1, channels, height, width): "
        f"{stage.channels} channels at stride {stage.stride}",
    )


def in_turn(
    stem: Iterable[nn.Module], stages: Iterable[nn.Module], x: mx.array
) -> list[mx.array]:
    """``x`` through a stem and stages, each after the other: what each stage gives."""
    for layer in stem:
        x = layer(x)
    return list(accumulate(stages, lambda x, stage: stage(x), initial=x))[1:]


class DownStage(nn.Module):
    """Abstract: a ``downsample``, which may change nothing, then ``blocks``."""

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to that of the stage."""
        x = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class ImageModel(nn.Module):
    """Abstract: a family gives ``maps``.

    ``pool`` and ``final`` may be the family's, too; ``head`` is a layer or absent.
    """

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the NHWC map of every stage."""
        raise NotImplementedError

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) last map to (B, C) embedding."""
        return x.mean(axis=(1, 2))

    def final(self, x: mx.array) -> mx.array:
        """What stands between the last stage and the pool: nothing in most families."""
        return x

    def features(
        self, x: mx.array, stages: tuple[int, ...] | None = None
    ) -> mx.array | list[mx.array]:
        """The last map, or with ``stages`` one NHWC map per named stage, in that order.

        ``model.config.feature_info`` has each stage's channels and stride.
        Raises ConfigError if the image does not fit or there is no such stage.
        """
        maps = self.checked_maps(x)
        if stages is None:
            return self.final(maps[-1])
        known = range(-len(maps), len(maps))
        if not isinstance(stages, Iterable) or not all(i in known for i in stages):
            raise ConfigError(f"stages {stages!r} of a model with stages 0 to {len(maps) - 1}")
        return [maps[int(i)] for i in stages]

    def pooled(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to the (B, C) vector the classifier reads."""
        return self.pool(self.final(self.checked_maps(x)[-1]))

    def pyramid(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the NHWC map of every stage."""
        return self.checked_maps(x)

    def map_tokens(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, N, C): the last map's pixels, row by row."""
        y = self.final(self.checked_maps(x)[-1])
        return y.reshape(y.shape[0], -1, y.shape[-1])

    def projected(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, N, dim) tokens as a language model reads them."""
        y: mx.array = self.projector(self.map_tokens(x))
        return y

    @property
    def signature(self) -> Signature:
        """One image in; logits if there is a head, the embedding, maps and tokens out."""
        info = self.info
        size = info.preprocess.size
        image = Input("image", "image", (1, size, size, 3), contract=info.preprocess)
        logits = Output(
            "logits", "logits", labels=info.class_names, text="Scores before the softmax"
        )
        outputs = [
            *([logits] if "head" in self else []),
            *_IMAGE_OUTPUTS[:1],
            *map(_stage_output, self.config.feature_info),
            *_IMAGE_OUTPUTS[1:],
            *([_PROJECTED] if "projector" in self else []),
        ]
        default = self.config.default_output or outputs[0].name
        return Signature((image,), tuple(outputs), (default,), info.name)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, num_classes) logits; the embedding if there is no head."""
        x = self.pooled(x)
        return self.head(x) if "head" in self else x

    def checked_maps(self, x: mx.array) -> list[mx.array]:
        """``maps`` of an image that fits. Raises ConfigError."""
        self.check_input(x)
        return self.maps(x)

    def check_input(self, x: mx.array) -> None:
        """Raises ConfigError if ``x`` is no image that fits."""
        check_image(x, self.config.stride)
        only = self.config.only_size
        if only and x.shape[1:3] != (only, only):
            raise ConfigError(
                f"an image of {x.shape[2]} x {x.shape[1]} px: this model takes {only} x {only}"
            )


def check_image(x: mx.array, step: int) -> None:
    """Raises ConfigError unless ``x`` is (B, H, W, 3) floats, H and W multiples of ``step``."""
    if not isinstance(x, mx.array) or not mx.issubdtype(x.dtype, mx.floating):
        kind = x.dtype if isinstance(x, mx.array) else type(x).__name__
        raise ConfigError(
            f"an input of {kind}: a model takes an mx.array of floats, which "
            "ondevice.preprocess(images, model.info.preprocess) makes of photos"
        )
    if x.ndim != 4 or x.shape[3] != 3 or 0 in x.shape or any(n % step for n in x.shape[1:3]):
        raise ConfigError(
            f"an input of shape {x.shape}: it has to be (batch, height, width, 3), "
            f"height and width multiples of {step}"
        )
