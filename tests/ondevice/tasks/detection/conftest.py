"""A detector, packages of it, and a set that it finds the objects of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters import export
from ondevice import save_model
from ondevice.tasks.dense import predict

from ...models.test_detectors import small

SIZES = ((120, 80), (60, 90), (96, 96), (50, 70))
OBJECTS = 6  # of each image


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved detector, packages of it, and a set whose objects are what it is surest of."""
    folder = tmp_path_factory.mktemp("chain")
    model = small()
    save_model(model, folder / "model")
    export(model, folder / "exact.mlpackage", precision="float32")
    export(model, folder / "half.mlpackage")
    write_set(folder / "images", model)
    return {path.name: path for path in folder.iterdir()}


def write_set(folder: Path, model: Any) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    names = [{"id": k, "name": name} for k, name in enumerate("xedcba")]
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": names}
    for number, size in enumerate(SIZES):
        pixels = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
        photo = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        photo.save(folder / f"{number}.png")
        entry = {"id": number, "file_name": f"{number}.png"}
        data["images"].append(entry | dict(zip(("width", "height"), size, strict=True)))
        (result,) = predict(model, [photo], "boxes", threshold=0.01)
        for each in result.found[:: len(result.found) // OBJECTS][:OBJECTS]:
            number_of_class = "xedcba".index(each.label)
            data["annotations"].append(
                {
                    "id": len(data["annotations"]),
                    "image_id": number,
                    "category_id": number_of_class,
                    "bbox": each.box,
                }
            )
    (folder / "_annotations.coco.json").write_text(json.dumps(data))
