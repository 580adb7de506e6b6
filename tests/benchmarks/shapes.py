"""Draws shapes on photos: images to train and to measure detectors and masks with.

    python -m tests.benchmarks.shapes OUT --images 2000 --seed 0 --part train --photos DIR

writes ``OUT/train/*.jpg`` (256 x 256), beside them ``_annotations.coco.json`` as Roboflow's
COCO export has it (boxes, and the pixels seen of each shape as uncompressed RLE), and
``OUT/train_masks/*.png``: the class of every pixel, 0 where there is no shape, else the
category's id, whose name stands in ``OUT/classes.txt``. Each image has 1 to 6 shapes, of each
at least 70 % can be seen. The same arguments give the same images. Without ``--photos``
backgrounds are drawn too.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIDE = 256  # of an image, in pixels
SIZES = (0.1, 0.5)  # of a shape, by the side of the image
MOST = 6  # shapes of an image
VISIBLE = 0.7  # of each shape at least
TRIES = 30  # to place one shape
SAMPLES = 4  # drawn for one pixel, in each direction

Array = np.ndarray[Any, np.dtype[Any]]
Rng = np.random.Generator


def _corners(*radii: float, count: int) -> Array:
    """``count`` points (x, y) around the centre, at ``radii`` in turn, the first one on top."""
    angles = np.arange(count) * (2 * math.pi / count) - math.pi / 2
    radius = np.resize(np.array(radii), count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]


def _cross() -> Array:
    arm, end = 0.3, 0.95
    quarter = np.array([(arm, -end), (arm, -arm), (end, -arm)])
    turns = [quarter @ np.linalg.matrix_power([[0, 1], [-1, 0]], k) for k in range(4)]
    return np.concatenate(turns)


def _heart() -> Array:
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 2.5], axis=1) / 18.4


# class -> its outlines in a circle of radius 1: the first is filled, the second is cut out
OUTLINES: dict[str, list[Array]] = {
    "circle": [_corners(1, count=64)],
    "square": [_corners(1, count=4)],
    "triangle": [_corners(1, count=3)],
    "star": [_corners(1, 0.45, count=10)],
    "cross": [_cross()],
    "ring": [_corners(1, count=64), _corners(0.55, count=64)],
    "hexagon": [_corners(1, count=6)],
    "heart": [_heart()],
}
CLASSES = list(OUTLINES)


def coverage(name: str, size: int, rng: Rng) -> Array:
    """How much of each pixel a shape covers, from 0 to 1, of shape (size, size)."""
    angle, stretch = rng.uniform(0, 2 * math.pi), rng.uniform(0.85, 1)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[1, 0], [0, stretch]]) @ np.array([[cos, sin], [-sin, cos]])
    drawing = Image.new("L", (size * SAMPLES, size * SAMPLES))
    for outline, fill in zip(OUTLINES[name], (255, 0), strict=False):
        points = (outline @ turn + 1) * (size * SAMPLES / 2)
        ImageDraw.Draw(drawing).polygon([tuple(p) for p in points.tolist()], fill=fill)
    return np.asarray(drawing.resize((size, size), Image.Resampling.BOX), np.float32) / 255


def _mix(weight: Array, one: Array, other: Array) -> Array:
    return one + weight[..., None] * (other - one)


def _gradient(size: int, rng: Rng) -> Array:
    y, x = np.mgrid[0:size, 0:size] / size
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    return (along - along.min()) / np.ptp(along)


def _round(size: int, rng: Rng) -> Array:
    y, x = np.mgrid[0:size, 0:size] / size
    return np.minimum(np.hypot(x - rng.uniform(0.3, 0.7), y - rng.uniform(0.3, 0.7)) * 1.4, 1)


def _stripes(size: int, rng: Rng) -> Array:
    return (_gradient(size, rng) * rng.integers(3, 9) % 1 < 0.5).astype(float)


def _checks(size: int, rng: Rng) -> Array:
    y, x = np.mgrid[0:size, 0:size] // max(size // int(rng.integers(4, 9)), 2)
    return (x + y) % 2


# how the second colour lies on the first, from 0 to 1 a pixel
TEXTURES: list[Callable[[int, Rng], Array]] = [
    lambda size, rng: np.zeros((size, size)),
    lambda size, rng: rng.uniform(0, 0.5, (size, size)),
    _gradient,
    _round,
    _stripes,
    _checks,
]


def _unlike(near: Array, rng: Rng) -> Array:
    """A colour, of four the one that stands out most from ``near``."""
    colours = rng.uniform(0, 255, (4, 3))
    return colours[np.linalg.norm(colours - near, axis=1).argmax()]


def texture(size: int, near: Array, rng: Rng) -> Array:
    """Pixels (size, size, 3) from 0 to 255 in two colours unlike ``near``."""
    pattern = TEXTURES[rng.integers(len(TEXTURES))]
    return _mix(pattern(size, rng), _unlike(near, rng), _unlike(near, rng))


def drawn_background(rng: Rng) -> Array:
    """Pixels (SIDE, SIDE, 3): a gradient under lines and soft noise."""
    pixels = _mix(_gradient(SIDE, rng), *rng.uniform(0, 255, (2, 3)))
    image = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 12)):
        ends = [int(v) for v in rng.integers(0, SIDE, 4)]
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        draw.line(ends, fill=colour, width=int(rng.integers(1, 5)))
    return np.asarray(image, np.float32) + rng.normal(0, 6, (SIDE, SIDE, 1))


def photo_background(path: Path, rng: Rng) -> Array:
    """Pixels (SIDE, SIDE, 3) of a square somewhere in the photo."""
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    side = int(min(photo.size) * rng.uniform(0.5, 1))
    left, top = (int(rng.integers(0, n - side + 1)) for n in photo.size)
    square = photo.resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.asarray(square, np.float32)


def _placed(layer: Array, left: int, top: int) -> Array:
    """The (size, size) layer on an empty image, what lies outside cut off."""
    size = len(layer)
    wide = np.zeros((SIDE + 2 * size, SIDE + 2 * size), layer.dtype)
    wide[top + size : top + 2 * size, left + size : left + 2 * size] = layer
    return wide[size : size + SIDE, size : size + SIDE]


class Scene:
    """Shapes one over another: the pixels, and the shape seen at each."""

    def __init__(self, background: Array) -> None:
        self.pixels = background
        self.seen = np.zeros((SIDE, SIDE), np.int64)  # number of the shape, from 1; else 0
        self.classes: list[str] = []
        self.areas: list[int] = []  # of whole shapes

    def add(self, rng: Rng) -> bool:
        """One more shape, if one of ``TRIES`` hides no shape too much."""
        name = CLASSES[rng.integers(len(CLASSES))]
        for _ in range(TRIES):
            size = int(SIDE * rng.uniform(*SIZES))
            left, top = (int(v) for v in rng.integers(-size // 6, SIDE - size * 5 // 6, 2))
            cover = coverage(name, size, rng)
            here = _placed(cover, left, top)
            seen = np.where(here >= 0.5, len(self.areas) + 1, self.seen)
            areas = [*self.areas, int((cover >= 0.5).sum())]
            counts = np.bincount(seen.ravel(), minlength=len(areas) + 1)[1:]
            if all(counts >= VISIBLE * np.array(areas)):
                near = self.pixels[here >= 0.5].mean(0)
                colours = texture(size, near, rng)
                layer = np.stack([_placed(c, left, top) for c in np.moveaxis(colours, 2, 0)], 2)
                self.pixels = _mix(here, self.pixels, layer)
                self.seen, self.areas = seen, areas
                self.classes.append(name)
                return True
        return False


def scene(background: Array, rng: Rng) -> Scene:
    """1 to ``MOST`` shapes on a background."""
    drawn = Scene(background)
    for _ in range(rng.integers(1, MOST + 1)):
        drawn.add(rng)
    return drawn


def run_lengths(mask: Array) -> list[int]:
    """COCO's uncompressed RLE: lengths of runs down the columns, the first one of zeros."""
    column = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(column))
    ends = np.concatenate([[0], edges, [mask.size]])
    lengths = np.diff(ends).tolist()
    return lengths if lengths[-1] else lengths[:-1]


def annotations(drawn: Scene, image_id: int) -> list[dict[str, Any]]:
    """COCO's annotations of a scene: what is seen of each shape."""
    found = []
    for number, name in enumerate(drawn.classes, start=1):
        mask = drawn.seen == number
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
        found.append(
            {
                "image_id": image_id,
                "category_id": CLASSES.index(name) + 1,
                "bbox": [int(v) for v in (columns[0], rows[0], width, height)],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": [SIDE, SIDE], "counts": run_lengths(mask)},
            }
        )
    return found


def class_mask(drawn: Scene) -> Array:
    """The category's id at each pixel, uint8 (SIDE, SIDE)."""
    ids = [0, *(CLASSES.index(name) + 1 for name in drawn.classes)]
    return np.array(ids, np.uint8)[drawn.seen]


def write(out: Path, part: str, images: int, seed: int, photos: list[Path]) -> None:
    """Draws ``images`` scenes, and writes them with their boxes and masks."""
    (out / part).mkdir(parents=True, exist_ok=True)
    (out / f"{part}_masks").mkdir(exist_ok=True)
    dataset: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)],
        "annotations": [],
    }
    for index in range(images):
        rng = np.random.default_rng([seed, index])
        photo = photos[rng.integers(len(photos))] if photos else None
        drawn = scene(photo_background(photo, rng) if photo else drawn_background(rng), rng)
        name = f"{index:05}"
        pixels = np.clip(np.rint(drawn.pixels), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(out / part / f"{name}.jpg", quality=90)
        Image.fromarray(class_mask(drawn)).save(out / f"{part}_masks" / f"{name}.png")
        image_id = index + 1
        dataset["images"].append(
            {"id": image_id, "file_name": f"{name}.jpg", "width": SIDE, "height": SIDE}
        )
        dataset["annotations"] += annotations(drawn, image_id)
    for number, annotation in enumerate(dataset["annotations"], start=1):
        annotation["id"] = number
    names = "\n".join(["background", *CLASSES]) + "\n"
    (out / "classes.txt").write_text(names, encoding="utf-8")
    (out / part / "_annotations.coco.json").write_text(json.dumps(dataset), encoding="utf-8")


def main() -> None:
    """Reads the command line and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="train", help="Name of the folder, as train or val.")
    parser.add_argument("--photos", type=Path, help="Folder of photos for backgrounds.")
    options = parser.parse_args()
    photos = sorted(options.photos.rglob("*.jpg")) if options.photos else []
    if options.photos and not photos:
        parser.error(f"no .jpg in {options.photos}; give a folder of photos")
    write(options.out, options.part, options.images, options.seed, photos)


if __name__ == "__main__":
    main()
