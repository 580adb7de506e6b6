"""What Python computes, for the tests of the Swift package: python -m tests.apps.goldens

All of it is made of generated images, texts and rows.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

from converters.program import MAX_OVERLAP_KEY
from ondevice.config import Preprocess
from ondevice.image.preprocess import normalize, resize_and_crop
from ondevice.signature import THRESHOLD, decode
from ondevice.signature.decode import Frame, top_predictions
from ondevice.tasks.clip import Tokenizer
from ondevice.tasks.embeddings.index import open_index
from ondevice.tasks.embeddings.search import search
from ondevice.tasks.embeddings.store import Table, write

from ..parity import open_clip_tokens
from ..support import clips

PACKAGE = Path(__file__).parents[2] / "apps" / "OnDeviceKit"
FOLDER = PACKAGE / "Tests" / "OnDeviceCoreTests" / "Goldens"
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROP_MODES = ("center", "squash", "border", "pad")
SIZES = (9, 16, 31)
SHAPES = ((61, 46), (23, 60), (20, 90), (40, 40), (7, 3), (1, 1))  # width, height
UPRIGHT, EXIF_ORIENTATION = 1, 0x0112
TEXTS = [
    *open_clip_tokens.TEXTS,
    "&copy &notit; &#128; &#x1F436; &#0; &#xD800; &#11; &amp;amp;lt; &bogus; & &; &#; &#x;",
    "<|endoftext|> in <|ENDOFTEXT|>>> the <|startoftext|>text, <<|endoftext|>",
    "cafe\u0301 \u212bngstr\u00f6m \u1112\u1161\u11ab \u304b\u3099 \u0130stanbul",
    "\u03a3\u0391\u03a3 Stra\u00dfe \ufb01n",
    "it's 'sunny ''s they'LL I'M '95 o'clock 3\u00bd \u2167 \u0663 \u2460 x\u00b2",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd",
    "no\u00a0break\u3000wide\u200bnone\u1680ogham tab\tend",
    "a" * 300,
]


def photo(width: int, height: int) -> Any:
    """(height, width, 3) pixel values: noise over a gradient, with white and black areas."""
    rng = np.random.default_rng(width * 1000 + height)
    y, x = np.mgrid[:height, :width]
    slope = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) * 5 % 256], axis=-1)
    image = np.clip(slope + rng.integers(-60, 60, (height, width, 3)), 0, 255)
    image[: height // 4, : width // 3] = 255
    image[-height // 5 :, -width // 4 :] = 0
    return image.astype(np.uint8)


def contracts() -> Iterator[tuple[tuple[int, int], int, Preprocess]]:
    """Shape, EXIF orientation and contract of each case: all filters, crop modes and sizes."""
    grid = itertools.product(INTERPOLATIONS, CROP_MODES, SIZES)
    for i, (interpolation, mode, size) in enumerate(grid):
        yield (
            SHAPES[i % len(SHAPES)],
            UPRIGHT + i % 8,
            Preprocess(
                size=size,
                interpolation=interpolation,
                crop_mode=mode,
                crop_pct=(0.875, 1.0, 0.9)[i % 3],
                fill=(10, 120, 250),
                source_size=(None, None, 12)[i // 3 % 3],
            ),
        )


def pixels() -> dict[str, Any]:
    """Images, and the pixels that a model sees of them."""
    cases = []
    for shape, orientation, contract in contracts():
        image = Image.fromarray(photo(*shape))
        image.getexif()[EXIF_ORIENTATION] = orientation
        seen = resize_and_crop(image, contract)
        cases.append(
            {
                "image": SHAPES.index(shape),
                "orientation": orientation,
                "contract": contract.to_dict(),
                "rgb": _base64(seen),
            }
        )
    images = [{"width": w, "height": h, "rgb": _base64(photo(w, h))} for w, h in SHAPES]
    return {"images": images, "cases": cases, "normalized": _normalized()}


def _normalized() -> dict[str, Any]:
    contract = Preprocess(size=8)
    seen = resize_and_crop(photo(*SHAPES[0]), contract)
    values = np.array(normalize(mx.array(seen), contract)).transpose(2, 0, 1)
    return {"contract": contract.to_dict(), "rgb": _base64(seen), "values": _floats(values)}


def predictions() -> list[dict[str, Any]]:
    """Logits, and their likeliest classes."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=n).astype(np.float32) * 4 for n in (1, 2, 10, 1000)]
    rows.append(np.zeros(6, np.float32))
    found = []
    for row in rows:
        (best,) = top_predictions(mx.array(row[None]), (), 5)
        top = [{"label": p.label, "score": p.score, "index": p.index} for p in best]
        found.append({"logits": _floats(row), "predictions": top})
    return found


def boxes() -> dict[str, Any]:
    """Boxes of two classes, and which of them stay."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 60, (60, 2))
    found = np.concatenate([corner, corner + rng.uniform(5, 40, (60, 2))], 1)
    found = found.astype(np.float32)
    scores = rng.permutation(60).astype(np.float32) / 60
    classes = rng.integers(0, 2, 60)
    return {
        "boxes": [_floats(box) for box in found],
        "scores": _floats(scores),
        "classes": classes.tolist(),
        "kept": {str(most): _suppressed(found, scores, classes, most) for most in (0.1, 0.5)},
    }


def _suppressed(boxes: Any, scores: Any, classes: Any, most: float) -> list[int]:
    """Suppression as a matrix: who covers whom, from the likeliest down."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    covers = both / (area[:, None] + area[None] - both) > most
    covers &= classes[:, None] == classes[None]
    alive, kept = np.ones(len(boxes), bool), []
    for i in np.argsort(-scores, kind="stable").tolist():
        if alive[i]:
            kept.append(i)
            alive &= ~covers[i]
    return kept


def detections() -> list[dict[str, Any]]:
    """What a detector's arrays mean in photos that its model sees in different ways."""
    rng = np.random.default_rng(2)
    labels, found = ("cat", "dog", "emu"), []
    for mode, (width, height), most in zip(
        ("squash", "pad", "center", "border"),
        ((200, 120), (90, 230), (64, 64), (301, 77)),
        (1.0, 0.6, 0.3, 0.0),
        strict=True,
    ):
        contract = Preprocess(size=64, crop_pct=1, crop_mode=mode)
        boxes = rng.uniform((0.1, 0.1, 0.2, 0.2), (0.9, 0.9, 0.7, 0.7), (20, 4))
        boxes, scores = boxes.astype(np.float32), rng.random((20, 3), np.float32)
        objects = decode.detections(
            boxes, scores, labels, THRESHOLD, Frame.of((width, height), contract), most
        )
        found.append(
            {
                "contract": contract.to_dict(),
                "size": [width, height],
                "metadata": {MAX_OVERLAP_KEY: f"{most:g}"} if most < 1 else {},
                "labels": labels,
                "boxes": {"shape": [1, 20, 4], "values": _floats(boxes)},
                "scores": {"shape": [1, 20, 3], "values": _floats(scores)},
                "objects": [
                    {"label": d.label, "index": d.index, "score": d.score, "box": list(d.box)}
                    for d in objects
                ],
            }
        )
    return found


def palette() -> list[list[int]]:
    """Pascal VOC's colours, by the digits of a class in base 8."""
    colors = []
    for index in range(256):
        digits = [index >> shift & 7 for shift in (0, 3, 6)]
        colors.append(
            [
                sum((digit >> channel & 1) << (7 - i) for i, digit in enumerate(digits))
                for channel in range(3)
            ]
        )
    return colors


def tokens(folder: Path) -> dict[str, Any]:
    """A small tokenizer, and the ids of texts."""
    merges = json.loads(open_clip_tokens.FILE.read_text())["merges"]
    path = clips.write_tokenizer(folder, merges)
    ids = Tokenizer(path)(TEXTS).tolist()
    return {"tokenizer": json.loads(path.read_text()), "texts": TEXTS, "ids": ids}


def index(path: Path, *, normalized: bool) -> list[dict[str, Any]]:
    """Writes an index to ``path``; queries, and what is found there."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(30, 37)).astype(np.float32)
    rows[17] = rows[4]  # of equals, the earlier
    if normalized:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    info = {"model": "toy", "weights": "00ff", "preprocess": {}, "normalized": normalized}
    names = [f"photos/{i}-\u00e4\u732b.jpg".encode() for i in range(len(rows))]
    write(path, Table(info | {"dim": 37}, 37, lambda: [(names, rows)]))
    found = []
    for query in (rows[4], rng.normal(size=37).astype(np.float32)):
        matches = search(open_index(path), query, top_k=6)
        found.append({"query": _floats(query), "matches": [vars(m) for m in matches]})
    return found


def _base64(pixels: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode("ascii")


def _floats(values: Any) -> list[float]:
    """As many digits as tell a float32 from the next."""
    return [float(f"{value:.9g}") for value in np.asarray(values).reshape(-1).tolist()]


def written(folder: Path) -> None:
    """Write all golden files to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Callable[[], Any]] = {
        "pixels": pixels,
        "predictions": predictions,
        "boxes": boxes,
        "detections": detections,
        "palette": palette,
        "index": lambda: index(folder / "index.safetensors", normalized=False),
        "unit": lambda: index(folder / "unit.safetensors", normalized=True),
    }
    for name, table in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(table()) + "\n")
    found = tokens(folder)
    (folder / "tokenizer.json").write_text(json.dumps(found.pop("tokenizer")) + "\n")
    (folder / "tokens.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    written(FOLDER)
