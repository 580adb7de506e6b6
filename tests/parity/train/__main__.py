"""Make a small case of a reference run of training: what the test compares, side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

KEPT = ("model", "size", "seed", "batch", "lr", "losses", "labels", "num_classes", "shapes")

for folder in map(Path, sys.argv[1:]):
    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "ref.npz") as file:
        arrays = {tuple(key.split("/")): file[key] for key in file.files}
    kept = {key: meta[key] for key in (*KEPT, "gains")}
    case = {}
    for kind in ("grad_norm", "grad_dot", "buffer"):
        found = {name: array for (k, name), array in arrays.items() if k == kind}
        kept[kind] = list(found)
        case[kind] = np.concatenate([array.ravel() for array in found.values()])
    case["meta"] = np.frombuffer(json.dumps(kept).encode(), np.uint8)
    path = Path(__file__).parent / f"{folder.name.removeprefix('train-')}.npz"
    np.savez_compressed(path, **case)
