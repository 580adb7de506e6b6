"""What a model is shown where nothing is given: images, and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import Array


def sample_images(size: int, count: int = 4) -> list[Array]:
    """(size, size, 3) uint8 images of edges, gradients and noise: from fine to coarse."""
    import numpy as np

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    found = []
    for i in range(count):
        cell = 2 ** (1 + i % 4)
        noise = rng.integers(0, 256, (size // cell + 1, size // cell + 1, 3))
        blocks = np.kron(noise, np.ones((cell, cell, 1)))[:size, :size]
        slope = np.stack([x, y, 1 - x], axis=-1) * 255
        found.append((0.6 * blocks + 0.4 * slope).astype(np.uint8))
    return found


# From a few tokens to as many as there can be.
CAPTIONS = (
    "a photo of a cat.",
    "Two dogs, one black and one white, are playing with a red ball on the beach.",
    "a small wooden house beside a lake, with snow on the mountains behind it and a boat in "
    "front; it's early morning, and nobody is there",
    "a market: " + "apples, pears, grapes, lemons, fish, bread and flowers; " * 6,
)
