"""Make a small case of a full reference run: python compact.py FOLDER... (see README.md)."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

SAMPLES = 256


def positions(size: int) -> np.ndarray:
    """Which values of a flattened (N, C, H, W) map a case keeps."""
    return np.random.default_rng(0).integers(size, size=min(size, SAMPLES))


def compact(folder: Path) -> dict[str, np.ndarray]:
    meta = json.loads((folder / "meta.json").read_text())
    vision = {k: s for k, s in meta["shapes"].items() if not _language(k)}
    kept = {k: meta[k] for k in ("model", "size", "seed", "gains")}
    kept |= {"shapes": vision, "batch": meta.get("batch", 1)}
    kept |= {"num_classes": meta.get("num_classes", 0), "unit": "image_u8" in meta["outputs"]}
    with np.load(folder / "ref.npz") as reference:
        arrays = {k: reference[k] for k in reference.files}
    stages = {int(k[6:]): a for k, a in arrays.items() if k[:6] == "stage_"}
    if len({a.shape for a in stages.values()}) == 1:  # some blocks of a plain transformer
        last = {"stage_0": stages[max(stages)]}
        arrays = {k: a for k, a in arrays.items() if k[:6] != "stage_"} | last
    arrays["features"] = as_map(arrays["features"], arrays["pooled"].shape[-1])
    kept["kept"] = {k: a.shape[:2] for k, a in arrays.items() if a.ndim == 4}
    case = {"meta": np.frombuffer(json.dumps(kept).encode(), np.uint8)}
    for name, array in arrays.items():
        if name in ("logits", "pooled"):
            case[name] = array[:, :: class_step(array)]
        elif name == "features" or name.startswith("stage_"):
            case[name] = array.ravel()[positions(array.size)]
            case[f"{name}.std"] = array.std()
    return case


def as_map(array: np.ndarray, channels: int) -> np.ndarray:
    """(N, C, H, W) of what some families give as (N, H * W, C) or (N, H, W, C)."""
    if array.ndim == 3:
        side = math.isqrt(array.shape[1])
        array = array[:, -(side**2) :]  # without the tokens that belong to no patch
        array = array.reshape(len(array), side, side, -1)
    last = array.shape[-1] == channels != array.shape[1]
    return array.transpose(0, 3, 1, 2) if last else array


def class_step(logits: np.ndarray) -> int:
    """Of thousands of classes, every so many are kept."""
    return max(1, logits.shape[-1] // 2000)


def _language(key: str) -> bool:
    return key.startswith(("model.layers.", "model.embed_tokens.", "lm_head."))


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        np.savez_compressed(Path(__file__).parent / f"{folder.name}.npz", **compact(folder))
