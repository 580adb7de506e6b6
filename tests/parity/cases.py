"""The golden cases, read back."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice import create_model
from ondevice.cpu import kernels
from ondevice.nn.image_model import ImageModel

from . import weightgen

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
OPERATIONS = {"as here": nullcontext, "as on a Mac": kernels.plain}


@dataclass
class Case:
    name: str
    folder: ClassVar[Path] = FOLDER

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{self.name}.npz") as file:
            return {key: file[key] for key in file.files}

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads(self.arrays["meta"].tobytes())

    @property
    def model(self) -> str:
        return self.meta["model"].replace("fastvlm", "fastvithd")

    @property
    def input(self) -> mx.array:
        """(B, H, W, 3)."""
        pixels = weightgen.image_batch(*(self.meta[k] for k in ("seed", "batch", "size")))
        pixels = pixels / 4 + 0.5 if self.meta["unit"] else pixels
        return mx.array(pixels.transpose(0, 2, 3, 1))

    def weights(self) -> dict[str, mx.array]:
        """The checkpoint: upstream names, torch's layouts."""
        arrays = weightgen.state_dict(*(self.meta[k] for k in ("seed", "shapes", "gains")))
        return {key: mx.array(array) for key, array in arrays.items()}

    def create(self, **options: Any) -> nn.Module:
        num_classes = self.meta["num_classes"]
        return create_model(
            self.model, weights=self.weights(), num_classes=num_classes, **options
        )


def outputs(model: nn.Module, x: mx.array) -> dict[str, np.ndarray]:
    """All that a model gives, from one run: logits, pooled, and maps as (N, C, H, W)."""
    maps = model.maps(x)
    last = model.final(maps[-1])
    found = {f"stage_{i}": y.transpose(0, 3, 1, 2) for i, y in enumerate(maps)}
    of_map = type(model).pooled is ImageModel.pooled
    pooled = model.pool(last) if of_map else model.pooled(x)
    found |= {"features": last.transpose(0, 3, 1, 2), "pooled": pooled}
    if "head" in model:
        found["logits"] = model.head(found["pooled"])
    return {key: np.array(y.astype(mx.float32)) for key, y in found.items()}


def psnr_db(value: np.ndarray, reference: np.ndarray) -> float:
    error = np.square(value - reference, dtype=np.float64).mean()
    return float(10 * np.log10(np.square(np.ptp(reference)) / error))
