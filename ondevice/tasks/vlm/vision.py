"""Images as the language model reads them: projected tokens."""

from __future__ import annotations

import copy
import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...config import Preprocess
from ...cpu import kernels
from ...cpu.threads import run
from ...errors import ConfigError, ImageError
from ...image.open import as_rgb, name_of
from ...image.preprocess import each, normalize, resize_and_crop
from ..clock import Clock
from .reduce import METHODS

if TYPE_CHECKING:
    from ...image.open import ImageLike
    from ...image.preprocess import Pixels

Method = Literal["dct", "merge"]
Crop = Literal["pad", "center"]
Key: TypeAlias = tuple[Any, ...]
STRIDE = 64  # pixels of a token's side
BATCH = 4  # images in the encoder at a time


@dataclass(frozen=True, kw_only=True)
class Vision:
    """How an image becomes tokens: the fewer, the sooner an answer begins.

    ``size`` px make ``(size / 64)²`` tokens; FastVLM was trained at 1024. The image is
    padded to a square, as in Apple's Python code, or its centre cut out ("center"), as in its
    app. ``tokens`` reduces their number further, by ``method``: see ``reduce.py``.

    Raises ConfigError that lists all that is impossible.
    """

    size: int = 1024
    crop: Crop = "pad"
    tokens: int | None = None
    method: Method = "dct"

    def __post_init__(self) -> None:
        problems = []
        if self.size < STRIDE or self.size % STRIDE:
            problems.append(f"size={self.size} is no multiple of {STRIDE}")
        if self.crop not in get_args(Crop):
            problems.append(f"no crop {self.crop!r}; there are {', '.join(get_args(Crop))}")
        if self.method not in METHODS:
            problems.append(f"no method {self.method!r}; there are {', '.join(METHODS)}")
        if self.tokens is not None and not 0 < self.tokens <= self.grid:
            problems.append(f"tokens={self.tokens} of the {self.grid} that {self.size} px make")
        elif (
            self.tokens and self.method == "dct" and math.isqrt(self.tokens) ** 2 != self.tokens
        ):
            problems.append(f"tokens={self.tokens} is no square, which dct needs")
        if problems:
            raise ConfigError(f"impossible vision: {'; '.join(problems)}")

    @property
    def grid(self) -> int:
        """Tokens of the encoder."""
        return (self.size // STRIDE) ** 2

    @property
    def count(self) -> int:
        """Tokens that the language model reads."""
        return self.tokens or self.grid


class Projector(nn.Module):
    """FastVLM's ``mlp2x_gelu``: from the encoder's tokens to the language model's."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_dim, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(..., in_dim) to (..., dim)."""
        return self.linear_2(kernels.gelu(self.linear_1(x)))


class Recent:
    """The tokens of the ``capacity`` images used last."""

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self._found: OrderedDict[Key, mx.array] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: Key) -> mx.array | None:
        """The tokens under ``key``, if they are remembered."""
        if key in self._found:
            self._found.move_to_end(key)
        return self._found.get(key)

    def put(self, key: Key, tokens: mx.array) -> None:
        """Remember ``tokens``; forget those whose last use is longest ago."""
        self._found[key] = tokens
        self._found.move_to_end(key)
        while len(self._found) > self.capacity:
            self._found.popitem(last=False)


class VisionTower:
    """FastViTHD and projector. ``weights`` tells them from others in a shared ``cache``."""

    def __init__(
        self, encoder: nn.Module, projector: Projector, weights: str, cache: Recent
    ) -> None:
        self.encoder = encoder
        self.projector = projector
        self.weights = weights
        self.cache = cache

    def preprocess(self, vision: Vision) -> Preprocess:
        """The contract: the same as in the package that ``ondevice export`` makes."""
        spec: Preprocess = self.encoder.info.preprocess
        return replace(spec, size=vision.size, crop_mode=vision.crop)

    def exportable(self) -> nn.Module:
        """The encoder and projector as one model: a package may give tokens of either."""
        model = copy.copy(self.encoder)
        model.projector = self.projector
        return model

    def pixels(self, images: ImageLike | Iterable[ImageLike], vision: Vision) -> list[Pixels]:
        """(size, size, 3) of each image. Raises ImageError that lists all unusable ones."""
        found, problems = [], []
        for image in each(images):
            try:
                found.append(self._pixels(image, vision))
            except ImageError as error:
                problems.append(str(error))
        if problems:
            raise ImageError("; ".join(problems))
        return found

    def _pixels(self, image: ImageLike, vision: Vision) -> Pixels:
        rgb = as_rgb(image)
        short, long = sorted(rgb.size)
        if short * vision.size < long:
            raise ImageError(
                f"{name_of(image)} has {rgb.size[0]:,} x {rgb.size[1]:,} px: too narrow"
                f" to be seen in a square of {vision.size:,} px; crop it first"
            )
        return resize_and_crop(rgb, self.preprocess(vision))

    def tokens(self, pixels: Sequence[Pixels], vision: Vision) -> mx.array:
        """(B, tokens, channels) of the encoder, reduced if ``vision`` says so."""
        x = normalize(mx.array(np.stack(pixels)), self.preprocess(vision))
        maps = run(self.encoder.features, x.astype(self.projector.linear_1.weight.dtype))
        tokens = maps.reshape(maps.shape[0], -1, maps.shape[-1])
        if vision.tokens is None:
            return tokens
        fewer, _ = METHODS[vision.method](tokens.astype(mx.float32), vision.tokens)
        return fewer.astype(tokens.dtype)

    def embed(
        self, images: ImageLike | Iterable[ImageLike], vision: Vision, clock: Clock
    ) -> list[mx.array]:
        """(tokens, dim) of each image, projected; those of recent images are remembered.

        Raises ImageError.
        """
        with clock("preprocess"):
            pixels = self.pixels(images, vision)
            keys = [self._key(image, vision) for image in pixels]
        found: dict[Key, Any] = {key: self.cache.get(key) for key in keys}
        unseen = {k: x for k, x in zip(keys, pixels, strict=True) if found[k] is None}
        for i in range(0, len(unseen), BATCH):
            batch = list(unseen)[i : i + BATCH]
            with clock("encode"):
                tokens = self.tokens([unseen[key] for key in batch], vision)
                mx.eval(tokens)
            with clock("project"):
                projected = self.projector(tokens)
                mx.eval(projected)
            found |= dict(zip(batch, projected, strict=True))
        for key in keys:
            self.cache.put(key, found[key])
        return [found[key] for key in keys]

    def _key(self, pixels: Pixels, vision: Vision) -> Key:
        return hashlib.sha256(pixels.tobytes()).hexdigest(), vision, self.weights
