"""Which images a folder has, how they are split, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest

from ondevice.errors import ConfigError
from ondevice.tasks.train import listing
from ondevice.tasks.train.dataset import read_dataset
from ondevice.tasks.train.near import near_notes

from . import photos


@pytest.fixture
def folder(tmp_path):
    return photos.write(tmp_path / "photos", 10)


def names(dataset, split):
    return {"/".join(s.path.rsplit("/", 2)[1:]) for s in dataset.splits[split]}


def test_a_folder_for_each_class_is_split_by_class_and_seed(folder):
    dataset = read_dataset(folder)
    assert dataset.classes == ("blue", "green", "red")
    assert dataset.counts("train") == [8, 8, 8]
    assert dataset.counts("val") == [2, 2, 2]
    assert not names(dataset, "train") & names(dataset, "val")
    assert not dataset.notes
    assert read_dataset(folder) == dataset
    assert names(read_dataset(folder, seed=1), "val") != names(dataset, "val")


def test_a_large_share_leaves_an_image_of_each_class_to_train_on(folder):
    dataset = read_dataset(folder, val_share=0.99)
    assert dataset.counts("train") == [1, 1, 1]
    assert dataset.counts("val") == [9, 9, 9]


def test_folders_of_splits_are_kept(tmp_path):
    photos.write(tmp_path / "train", 4)
    for name in ("red", "blue", "green"):
        for i, split in enumerate(("validation", "test")):
            (tmp_path / split / name).mkdir(parents=True)
            shutil.move(tmp_path / "train" / name / f"{i:02}.png", tmp_path / split / name)
    dataset = read_dataset(tmp_path)
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {
        "train": 6,
        "val": 3,
        "test": 3,
    }


@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv", "metadata.jsonl"])
def test_tables_give_the_same_as_folders(folder, name):
    by_folder = read_dataset(folder)
    rows = [(f"{c}/{i:02}.png", c) for c in photos.COLORS for i in range(10)]
    text = (
        "\n".join(json.dumps({"file_name": f, "label": c}) for f, c in rows)
        if name.endswith("jsonl")
        else "\n".join(["file_name,label", *(f"{f},{c}" for f, c in rows)])
    )
    (folder / name).write_text(text)
    assert read_dataset(folder) == by_folder


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file_name": "a.png", "label": ""}', "row 1 lacks a file or a label"),
        ("3", "3 is no object with a file"),
    ],
)
def test_lines_of_json_are_named_as_they_are_counted(folder, line, said):
    good = '{"file_name": "red/00.png", "label": "red"}'
    (folder / "metadata.jsonl").write_text(f"{line}\n{good}")
    with pytest.raises(ConfigError, match=said):
        read_dataset(folder)


def test_a_table_may_say_the_split(folder):
    rows = [
        f"{c}/{i:02}.png,{c},{'val' if i < 3 else 'train'}"
        for c in photos.COLORS
        for i in range(10)
    ]
    (folder / "labels.csv").write_text("\n".join(["image,class,split", *rows]))
    dataset = read_dataset(folder)
    assert dataset.counts("val") == [3, 3, 3]
    assert "red/02.png" in names(dataset, "val")


def test_unreadable_images_and_copies_are_left_out_and_named(folder):
    (folder / "red" / "broken.jpg").write_bytes(b"no image")
    shutil.copy(folder / "red" / "03.png", folder / "red" / "copy.png")
    shutil.copy(folder / "blue" / "05.png", folder / "green" / "both.png")
    dataset = read_dataset(folder)
    found = "\n".join(dataset.skipped)
    assert "broken.jpg is not an image" in found
    assert "copy.png is a copy of" in found
    assert "both.png: the same image in classes that differ" in found
    assert [a + b for a, b in zip(dataset.counts(), dataset.counts("val"), strict=True)] == [
        9,
        10,
        10,
    ]


def test_a_copy_across_splits_leaves_training(tmp_path):
    photos.write(tmp_path / "train", 5)
    photos.write(tmp_path / "val", 1)
    dataset = read_dataset(tmp_path)
    assert dataset.counts("train") == [4, 4, 4]
    assert dataset.counts("val") == [1, 1, 1]
    assert len(dataset.skipped) == 3


def test_unequal_classes_are_said(folder):
    for i in range(3, 10):
        (folder / "red" / f"{i:02}.png").unlink()
    (note,) = read_dataset(folder).notes
    assert note == "classes are unequal: 8 images of blue, 2 of red; --balance weights them"


def test_the_fingerprint_sees_a_change(folder):
    before = read_dataset(folder).fingerprint
    assert read_dataset(folder).fingerprint == before
    photos.photo((1, 2, 3), 0).save(folder / "red" / "new.png")
    assert read_dataset(folder).fingerprint != before


def one_class(folder):
    shutil.rmtree(folder / "red")
    shutil.rmtree(folder / "blue")


def one_image(folder):
    for i in range(1, 10):
        (folder / "red" / f"{i:02}.png").unlink()


def all_gone(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def all_missing(folder):
    lines = [f"{c}/{i}.jpg,{c}" for c in photos.COLORS for i in range(2)]
    (folder / "labels.csv").write_text("\n".join(["file_name,label", *lines]))


REFUSED = {
    "missing files": (all_missing, "; left out: "),
    "why they are missing": (all_missing, "1.jpg cannot be opened: No such file"),
    "more that are missing": (all_missing, "; and 3 more"),
    "one class": (one_class, "has one class, green; two classes or more are needed"),
    "one image": (one_image, "class red has one usable image; it needs two or more"),
    "empty": (all_gone, "is empty: expected a folder of images for each class"),
    "no folder": (shutil.rmtree, "is no folder; give one with a folder of images per class"),
    "case": (
        lambda f: shutil.copytree(f / "red", f / "Red"),
        "classes Red, red differ by case only",
    ),
    "name": (lambda f: (f / "red").rename(f / "r\ted"), r"unprintable for class 2 ('r\ted')"),
    "root": (
        lambda f: photos.photo((1, 2, 3), 0).save(f / "a.png"),
        "1 images lie beside the folders of classes, such as a.png",
    ),
    "empty class": (lambda f: (f / "grey").mkdir(), "grey has no images"),
    "columns": (lambda f: (f / "labels.csv").write_text("a,b\n1,2"), "expected the columns"),
    "split": (
        lambda f: (f / "labels.csv").write_text("file,label,split\nred/00.png,red,dev\n"),
        "row 2 has the split dev; expected train, val or test",
    ),
    "cell": (
        lambda f: (f / "labels.csv").write_text("file,label\nx.png,\n"),
        "row 2 lacks a file or a label",
    ),
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_cannot_be_trained_on_is_one_line(folder, change):
    action, message = REFUSED[change]
    action(folder)
    with pytest.raises(ConfigError) as error:
        read_dataset(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_may_not_be_read_is_not_called_empty(folder, monkeypatch):
    shutil.rmtree(folder / "red")
    (folder / "red").mkdir()
    monkeypatch.setattr(listing.os, "access", lambda path, mode: "red" not in str(path))
    with pytest.raises(ConfigError, match="red is a folder that may not be read"):
        read_dataset(folder)


def test_an_image_of_60000_pixels_a_side_is_left_out(folder):
    (folder / "red" / "huge.ppm").write_bytes(b"P6 60000 60000 255\n")
    (problem,) = read_dataset(folder).skipped
    assert "huge.ppm has more than 178,956,970 pixels" in problem


def test_warnings_of_pil_are_kept_from_the_user(folder, recwarn):
    for i in range(10):
        image = photos.photo((1, 2, 3), i).convert("P")
        image.save(folder / "red" / f"{i:02}.png", transparency=bytes(range(256)))
    assert not list(near_notes(read_dataset(folder).splits))
    assert not recwarn.list
