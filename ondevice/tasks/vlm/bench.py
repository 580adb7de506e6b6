"""What an image's size and tokens cost, and what fewer of them lose."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from .model import VLM
from .reduce import METHODS, relative_error
from .vision import Recent, Vision, VisionTower

if TYPE_CHECKING:
    from ...image.open import ImageLike

PROMPT = "Describe the image."
STEPS = ("preprocess", "encode", "project", "prefill", "time_to_first_token")


@dataclass(frozen=True)
class Cost:
    """What one ``vision`` costs: medians in seconds; ``error`` is what is lost by reducing.

    It compares the projected tokens, spread over the grid again, with those that would be
    there without reducing: the norm of the difference over the norm.
    """

    vision: Vision
    seconds: dict[str, float]
    tokens_per_second: float
    prompt_tokens: int
    error: float | None


def bench(
    vlm: VLM, image: ImageLike, visions: Iterable[Vision], *, repeat: int = 3, tokens: int = 16
) -> Iterator[Cost]:
    """Measure each of ``visions`` ``repeat`` times, after a run to warm up.

    Each run answers with up to ``tokens`` tokens. Raises as ``VLM.generate``.
    """
    fresh = _without_cache(vlm)
    for vision in visions:
        options: dict[str, Any] = {"max_tokens": tokens, "vision": vision}
        answers = [fresh.generate(PROMPT, image, **options) for _ in range(repeat + 1)]
        runs = [answer.timings for answer in answers[1:]]
        yield Cost(
            vision=vision,
            seconds={step: statistics.median(getattr(t, step) for t in runs) for step in STEPS},
            tokens_per_second=statistics.median(t.tokens_per_second for t in runs),
            prompt_tokens=runs[0].prompt_tokens,
            error=reconstruction_error(vlm.tower, image, vision) if vision.tokens else None,
        )


def _without_cache(vlm: VLM) -> VLM:
    """The same model, which encodes each image anew."""
    fresh, tower = copy.copy(vlm), vlm.tower
    fresh.tower = VisionTower(tower.encoder, tower.projector, tower.weights, Recent(0))
    return fresh


def reconstruction_error(tower: VisionTower, image: ImageLike, vision: Vision) -> float:
    """How far projected tokens are from what they are without reducing: see ``Cost``."""
    full = Vision(size=vision.size, crop=vision.crop)
    tokens = tower.tokens(tower.pixels(image, full), full).astype(mx.float32)
    fewer, restore = METHODS[vision.method](tokens, vision.count)
    return relative_error(restore(tower.projector(fewer)), tower.projector(tokens))
