"""Folders of tiny images with bright squares and bars on noise, with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("background", "bar", "square")
SIDE = 64
Array = np.ndarray[Any, Any]


def scene(rng: np.random.Generator) -> tuple[Array, Array]:
    """(SIDE, SIDE, 3) pixel values and the class of each pixel, 255 at one edge."""
    pixels = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for top in (0, 32):  # one in each half
        number = int(rng.integers(1, 3))
        width, height = (40, 10) if number == 1 else (22, 22)
        x, y = int(rng.integers(SIDE - width)), int(top + rng.integers(32 - height))
        here = np.s_[y : y + height, x : x + width]
        pixels[here] = (60, 200, 250) if number == 1 else (240, 220, 40)
        mask[here] = number
    mask[:, -4:] = 255
    return pixels, mask


def write(folder: Path, **counts: int) -> Path:
    """So many images of each split, and ``classes.txt``."""
    for split, count in counts.items():
        for name in (split, f"{split}_masks"):
            (folder / name).mkdir(parents=True)
        rng = np.random.default_rng(list(split.encode()))
        for number in range(count):
            pixels, mask = scene(rng)
            Image.fromarray(pixels).save(folder / split / f"{number:03}.png")
            Image.fromarray(mask).save(folder / f"{split}_masks" / f"{number:03}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return folder
