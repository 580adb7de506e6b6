"""Weights, token numbers and golden outputs of MobileCLIP's encoders.

``python -m tests.parity.clip_cases`` makes the golden files with torch, timm and open_clip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import weightgen

FOLDER = Path(__file__).parent / "clip"
SEED = 7
GOLDEN = ("mobileclip_s0_text", "mobileclip_s1_text", "mobileclip_b_text", "vit_base_mci_224")


def weights(shapes: Mapping[str, Sequence[int]], seed: int = SEED) -> dict[str, np.ndarray]:
    """As ``weightgen.state_dict``; what timm calls otherwise gets its due scale."""
    known = {
        k: k.replace("in_proj_", "in_proj.").replace("embedding.weight", "embedding.table")
        for k in shapes
    }
    made = weightgen.state_dict(seed, {known[k]: s for k, s in shapes.items()}, {})
    return {k: np.asarray(made[known[k]]) for k in shapes}


def tokens(
    batch: int = 3, vocab: int = 49408, context: int = 77, seed: int = SEED
) -> np.ndarray:
    """Texts of several lengths, the longest cut: start, words, end, zeros."""
    rng = np.random.default_rng(seed)
    found = np.zeros((batch, context), np.int32)
    for row, words in zip(found, rng.permutation(context - 1)[:batch] - 1, strict=True):
        words = max(1, words)
        row[: words + 1] = [vocab - 2, *rng.integers(1, vocab - 2, words)]
        row[words + 1] = vocab - 1
    found[0, -1] = vocab - 1  # one that fills all places
    found[0, :-1] = [vocab - 2, *rng.integers(1, vocab - 2, context - 2)]
    return found


def golden(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a golden file says of its weights, and its arrays."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(arrays.pop("meta").tobytes()), arrays


def main() -> None:
    from . import clip_torch

    for name in GOLDEN:
        shapes, arrays = clip_torch.run(name)
        meta = np.frombuffer(json.dumps({"shapes": shapes}).encode(), np.uint8)
        np.savez_compressed(FOLDER / f"{name}.npz", meta=meta, **arrays)
        print(name, {k: v.shape for k, v in arrays.items()})


if __name__ == "__main__":
    main()
