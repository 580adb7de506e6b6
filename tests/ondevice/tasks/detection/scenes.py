"""Folders of tiny images with bright squares and bars on noise, in COCO's form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("bar", "square")
SIDE = 64


def scene(rng: np.random.Generator) -> tuple[Image.Image, list[tuple[int, list[int]]]]:
    """A photo, and the class and the box (x, y, width, height) of each object in it."""
    pixels = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    objects = []
    for half in rng.permutation(2)[
        : rng.integers(1, 3)
    ]:  # one in each half, none behind another
        number = int(rng.integers(2))
        width, height = (24, 10) if number == 0 else (20, 20)
        x, y = int(rng.integers(SIDE - width)), int(half * 32 + rng.integers(32 - height))
        pixels[y : y + height, x : x + width] = (240, 220, 40) if number else (60, 200, 250)
        objects.append((number, [x, y, width, height]))
    return Image.fromarray(pixels), objects


def write(folder: Path, **counts: int) -> Path:
    """So many images of each split, as Roboflow exports them."""
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        rng = np.random.default_rng(list(split.encode()))
        data = {"images": [], "annotations": [], "categories": []}
        data["categories"] = [{"id": 5 + i, "name": name} for i, name in enumerate(CLASSES)]
        for number in range(count):
            image, objects = scene(rng)
            name = f"{number:03}.png"
            image.save(folder / split / name)
            size = {"width": SIDE, "height": SIDE}
            data["images"].append({"id": number, "file_name": name, **size})
            for kind, box in objects:
                own = {"id": len(data["annotations"]), "image_id": number, "bbox": box}
                own |= {"category_id": 5 + kind, "area": box[2] * box[3], "iscrowd": 0}
                data["annotations"].append(own)
        (folder / split / "_annotations.coco.json").write_text(json.dumps(data))
    return folder
