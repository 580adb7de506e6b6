"""Folders of tiny generated images: a class has a colour of its own, and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}


def photo(color, number, size=40) -> Image.Image:
    rng = np.random.default_rng([*color, number])
    pixels = np.array(color) + rng.normal(0, 40, (size, size + 4, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(folder: Path, count: int = 20, colors=COLORS) -> Path:
    """``count`` images in a folder for each class."""
    for name, color in colors.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            photo(color, i).save(folder / name / f"{i:02}.png")
    return folder
