"""Cases of networks that give maps: python -m tests.parity.dense_cases FOLDER... makes them.

As ``cases``, of transformers' models: from each full run (``meta.json`` and ``ref.npz``) 256
values of each output are kept, and its spread. Of a detector's sets the boxes are kept whole,
with the class and the score of the surest class.
"""

from __future__ import annotations

import json
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice import create_model

from . import weightgen
from .cases import Case
from .compact import positions

FOLDER = Path(__file__).parent / "dense"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
BOXES = ("pred_boxes", "enc_topk_bboxes")
LOGITS = ("logits", "enc_topk_logits")
KEPT = ("model", "size", "seed", "gains", "shapes", "batch")


class DenseCase(Case):
    folder = FOLDER

    @cached_property
    def input(self) -> mx.array:
        """(B, H, W, 3)."""
        pixels = weightgen.image_batch(*(self.meta[k] for k in ("seed", "batch", "size")))
        return mx.array(pixels.transpose(0, 2, 3, 1))

    def create(self, model: str = "", **options: Any) -> nn.Module:
        name = model or self.meta["model"]
        return create_model(name, weights=self.weights(), **options)

    def error(self, output: str, found: np.ndarray) -> float:
        """The largest error of the kept values, over the spread of the output."""
        wanted = self.arrays[output]
        kept = found.ravel()[positions(found.size)]
        assert kept.shape == wanted.shape
        return float(np.abs(kept - wanted).max() / self.arrays[f"{output}.std"])


def pairs(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of (N, 4) boxes the nearest of the others, each of which is taken once."""
    apart = np.abs(boxes[:, None] - others[None]).max(axis=-1)
    found = apart.argmin(axis=1)
    assert len({*found}) == len(boxes), "two boxes have one that is nearest"
    return found


def compact(folder: Path) -> dict[str, np.ndarray]:
    meta = json.loads((folder / "meta.json").read_text())
    kept = json.dumps({key: meta[key] for key in KEPT})
    case = {"meta": np.frombuffer(kept.encode(), np.uint8)}
    with np.load(folder / "ref.npz") as reference:
        for name in reference.files:
            array = reference[name]
            case[f"{name}.std"] = array.std()
            if name in BOXES:
                case[name] = array
            elif name in LOGITS and array.ndim == 3:
                case[f"{name}.class"] = array.argmax(axis=-1).astype(np.uint8)
                case[name] = array.max(axis=-1)
            elif name not in ("last_hidden_state", "init_reference_points"):
                case[name] = array.ravel()[positions(array.size)]
    return case


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        np.savez_compressed(FOLDER / f"{folder.name}.npz", **compact(folder))
