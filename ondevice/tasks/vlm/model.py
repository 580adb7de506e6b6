"""Encoder, projector and language model together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from ...cpu import blas
from ...errors import ConfigError, ImageError
from ...image.preprocess import each
from ..clock import Clock
from .answer import Answer
from .prompt import conversation
from .vision import Vision, VisionTower

if TYPE_CHECKING:
    from ...image.open import ImageLike

    Images = ImageLike | Iterable[ImageLike]


class VLM:
    """A FastVLM, from ``load_vlm``.

    ``tower`` holds ``encoder`` and ``projector``; ``language`` is mlx-lm's model, which reads
    at most ``context`` tokens, ``tokenizer`` mlx-lm's. ``vision`` applies where a call gives
    none.
    """

    def __init__(
        self,
        name: str,
        tower: VisionTower,
        language: nn.Module,
        tokenizer: Any,
        *,
        context: int,
        vision: Vision,
    ) -> None:
        self.name = name
        self.tower = tower
        self.language = language
        self.tokenizer = tokenizer
        self.context = context
        self.vision = vision

    def encode_image(self, image: ImageLike, *, vision: Vision | None = None) -> mx.array:
        """(tokens, dim): an image as the language model reads it. Raises ImageError."""
        return self.encode_images([image], vision=vision)[0]

    def encode_images(self, images: Images, *, vision: Vision | None = None) -> mx.array:
        """(B, tokens, dim) of several images. Raises ImageError."""
        blas.advise()
        embedded = self.tower.embed(images, vision or self.vision, Clock())
        if not embedded:
            raise ImageError("no images were given")
        return mx.stack(embedded)

    def encoder_tokens(self, images: Images, *, vision: Vision | None = None) -> mx.array:
        """(B, tokens, channels) of the encoder, not projected. Raises ImageError."""
        blas.advise()
        vision = vision or self.vision
        pixels = self.tower.pixels(images, vision)
        if not pixels:
            raise ImageError("no images were given")
        return self.tower.tokens(pixels, vision)

    def generate(self, prompt: str, images: Images = (), **options: Any) -> Answer:
        """As ``stream``, when all of it has come: ``generate(...).text``."""
        return self.stream(prompt, images, **options).finish()

    def stream(
        self,
        prompt: str,
        images: Images = (),
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        vision: Vision | None = None,
    ) -> Answer:
        """The answer as it comes: ``for text in vlm.stream(...)``.

        ``prompt`` may say by <image> where each image is; else they come first. With
        ``temperature`` 0 the most likely token is taken; ``seed`` makes other answers
        repeatable. The answer ends before any of the texts in ``stop``.

        Raises ConfigError, or ImageError that lists every image that cannot be used, before
        anything comes.
        """
        _check_sampling(max_tokens, temperature, top_p)
        blas.advise()
        given, vision, clock = list(each(images)), vision or self.vision, Clock()
        texts = self.tokenize(prompt, len(given))
        image_tokens = vision.count * len(given)
        prompt_tokens = sum(map(len, texts)) + image_tokens
        if (left := self.context - prompt_tokens) < 1:
            raise ConfigError(
                f"the prompt has {prompt_tokens:,} tokens, {image_tokens:,} of them of images; "
                f"{self.name} takes at most {self.context - 1:,}; ask with fewer words, or "
                "show smaller images or fewer tokens of them"
            )
        embedded = self.tower.embed(given, vision, clock)
        return Answer(
            self._responses(
                self.splice(texts, embedded), min(max_tokens, left), temperature, top_p, seed
            ),
            clock,
            prompt_tokens=prompt_tokens,
            image_tokens=image_tokens,
            stop=[stop] if isinstance(stop, str) else stop,
        )

    def tokenize(self, prompt: str, images: int) -> list[list[int]]:
        """The token ids of the texts around the images, a list for each text."""
        return [
            self.tokenizer.encode(text, add_special_tokens=False)
            for text in conversation(prompt, images)
        ]

    def splice(self, texts: Sequence[Sequence[int]], images: Sequence[mx.array]) -> mx.array:
        """(tokens, dim): what the language model reads, each image between two texts."""
        parts = []
        for i, ids in enumerate(texts):
            if ids:
                parts.append(self.language.model.embed_tokens(mx.array(list(ids))))
            if i < len(images):
                parts.append(images[i])
        dtype = parts[0].dtype
        return mx.concatenate([part.astype(dtype) for part in parts])

    def _responses(
        self,
        inputs: mx.array,
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int | None,
    ) -> Iterator[Any]:
        from mlx_lm.generate import stream_generate
        from mlx_lm.sample_utils import make_sampler

        if seed is not None:
            mx.random.seed(seed)
        yield from stream_generate(
            self.language,
            self.tokenizer,
            mx.array([], mx.int32),
            max_tokens,
            input_embeddings=inputs,
            sampler=make_sampler(temperature, top_p),
        )


def _check_sampling(max_tokens: int, temperature: float, top_p: float) -> None:
    problems = [
        problem
        for problem, wrong in {
            f"max_tokens={max_tokens}, at least 1 is needed": max_tokens < 1,
            f"temperature={temperature}": not (0 <= temperature < math.inf),
            f"top_p={top_p}, between 0 and 1 is needed": not 0 < top_p <= 1,
        }.items()
        if wrong
    ]
    if problems:
        raise ConfigError(f"impossible sampling: {'; '.join(problems)}")
