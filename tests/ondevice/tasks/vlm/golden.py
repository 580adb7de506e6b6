"""Make fastvlm-256.npz of the full reference run: python golden.py FOLDER.

transformers 5.23 (torch 2.13.0, CPU, float32) on the weights that ../parity/weightgen.py
rebuilds: FastViTHD, its projector and a Qwen2 of two layers, in Apple's names. What the
encoder gives is in ../parity/fastvlm-256.npz; here is the rest.

| array | what |
|---|---|
| `meta` | JSON: `shapes` of the language model's arrays, `llm` (its sizes) |
| `image_u8`, `pixels_sha256` | an image, and a hash of what the encoder is given of it |
| `projected`, `llm_logits` | 512 values at `positions`, and `….std`, the spread of all |
| `input_ids`, `greedy` | the prompt, -200 for the image; the eight likeliest tokens |
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "fastvlm-256.npz"


def positions(size: int) -> np.ndarray:
    """Which values of a flattened array are kept."""
    return np.random.default_rng(0).integers(size, size=512)


def sha256(pixels: np.ndarray) -> np.ndarray:
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()
    return np.frombuffer(digest, np.uint8)


def compact(folder: Path) -> dict[str, np.ndarray]:
    meta = json.loads((folder / "meta.json").read_text())
    language = ("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")
    shapes = {k: s for k, s in meta["shapes"].items() if k.startswith(language)}
    text = json.dumps({"llm": meta["llm"], "shapes": shapes})
    with np.load(folder / "ref.npz") as reference:
        found = {k: reference[k] for k in ("input_ids", "greedy", "image_u8")}
        found["pixels_sha256"] = sha256(reference["pixel_values_u8"])
        for name in ("projected", "llm_logits"):
            array = reference[name]
            found |= {name: array.ravel()[positions(array.size)], f"{name}.std": array.std()}
    return found | {"meta": np.frombuffer(text.encode(), np.uint8)}


if __name__ == "__main__":
    np.savez_compressed(FILE, **compact(Path(sys.argv[1])))
