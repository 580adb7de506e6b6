"""Images of validation that look like images of training are named, and stay."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ondevice.tasks.train.dataset import read_dataset
from ondevice.tasks.train.near import near_duplicates, near_notes

SIDE = 96


def scene(number):
    """A smooth random picture."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
    return coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def write(folder, count=12):
    for label in range(2):
        for split, first in (("train", 0), ("val", 50)):
            path = folder / split / f"class {label}"
            path.mkdir(parents=True)
            for i in range(count):
                scene(100 * label + first + i).save(path / f"{i:02}.png")
    return folder


def test_what_is_another_image_is_no_copy(tmp_path):
    splits = read_dataset(write(tmp_path)).splits
    assert len(splits["val"]) == 24
    assert near_duplicates(splits) == []
    assert list(near_notes(splits)) == []


def test_copies_that_were_resized_or_compressed_anew_are_named_and_stay(tmp_path):
    folder = write(tmp_path)
    scene(3).resize((60, 60)).save(folder / "val" / "class 0" / "small.png")
    scene(105).save(folder / "val" / "class 1" / "poor.jpg", quality=30)
    Image.new("RGB", (40, 40), (9, 9, 9)).save(folder / "val" / "class 0" / "black.png")
    Image.new("RGB", (50, 50), (9, 9, 9)).save(folder / "train" / "class 0" / "black.png")
    splits = read_dataset(folder).splits
    names = [
        tuple(path[len(str(tmp_path)) + 1 :] for path in p) for p in near_duplicates(splits)
    ]
    assert names == [
        ("val/class 0/small.png", "train/class 0/03.png"),
        ("val/class 1/poor.jpg", "train/class 1/05.png"),
    ]
    (note,) = near_notes(splits)
    assert note.startswith("2 images to measure on look like images to train on")
    assert "small.png like " in note
    assert any("small.png" in sample.path for sample in splits["val"])
