"""The drawn shapes: what the boxes and masks say is what was drawn."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.benchmarks import shapes


def test_boxes_and_runs_are_those_of_the_masks(tmp_path: Path) -> None:
    shapes.write(tmp_path, "train", 6, 3, [])
    dataset = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    for image in dataset["images"]:
        stem = Path(image["file_name"]).stem
        mask = np.asarray(Image.open(tmp_path / "train_masks" / f"{stem}.png"))
        drawn = np.zeros(mask.size, np.uint8)
        for found in dataset["annotations"]:
            if found["image_id"] == image["id"]:
                counts = found["segmentation"]["counts"]
                runs = np.repeat(np.arange(len(counts)) % 2, counts)
                rows, columns = np.nonzero(runs.reshape(mask.shape[::-1]).T)
                x, y, width, height = found["bbox"]
                assert (x, y) == (columns.min(), rows.min())
                assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
                assert found["area"] == runs.sum()
                drawn += (found["category_id"] * runs).astype(np.uint8)
        np.testing.assert_array_equal(drawn.reshape(mask.shape[::-1]).T, mask)


def test_the_same_seed_gives_the_same_files_and_another_one_others(tmp_path: Path) -> None:
    for out, seed in ("a", 0), ("b", 0), ("c", 1):
        shapes.write(tmp_path / out, "train", 2, seed, [])
    a, b, c = ((tmp_path / out / "train" / "00001.jpg").read_bytes() for out in "abc")
    assert a == b != c


def test_no_shape_is_hidden_by_more_than_its_share() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        drawn = shapes.scene(shapes.drawn_background(rng), rng)
        seen = np.bincount(drawn.seen.ravel(), minlength=len(drawn.areas) + 1)[1:]
        assert 1 <= len(drawn.areas) <= shapes.MOST
        assert (seen >= shapes.VISIBLE * np.array(drawn.areas)).all()
