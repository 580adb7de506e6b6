"""Annotations in COCO's form: what is read, where it is found, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ondevice.errors import ConfigError, ImageError
from ondevice.tasks.detection.coco import read_coco
from ondevice.tasks.detection.coco_files import annotation_files, is_coco

GIVEN: dict[str, Any] = {
    "categories": [
        {"id": 7, "name": "dog"},
        {"id": 3, "name": "cat", "supercategory": "animal"},
    ],
    "images": [
        {"id": 20, "file_name": "b.png", "width": 40, "height": 30},
        {"id": 10, "file_name": "a.png", "width": 20, "height": 30},
    ],
    "annotations": [
        {"id": 0, "image_id": 20, "category_id": 7, "bbox": [1, 2, 10.5, 4], "area": 30},
        {"id": 1, "image_id": 20, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
    ],
}


def written(folder: Path, data: Any, name: str = "_annotations.coco.json") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(data if isinstance(data, str) else json.dumps(data))
    return folder / name


def images_in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for image in GIVEN["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(folder / image["file_name"])
    return folder


def changed(**change: Any) -> dict[str, Any]:
    """The data with an annotation changed."""
    data = copy.deepcopy(GIVEN)
    data["annotations"][0] |= change
    return data


def test_images_and_classes_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    found = read_coco(written(images_in(tmp_path), GIVEN))
    assert found.classes == ("cat", "dog")
    first, second = found.images
    assert [Path(i.path).name for i in found.images] == ["a.png", "b.png"]
    assert (first.size, first.boxes.shape) == ((20, 30), (0, 4))
    np.testing.assert_array_equal(second.boxes, [[1, 2, 10.5, 4], [0, 0, 40, 30]])
    assert second.classes.tolist() == [1, 0]
    assert second.areas.tolist() == [30, 1200]  # the second of its box
    assert second.crowd.tolist() == [False, True]
    assert found.counts() == [0, 1]
    assert found.notes == ()


def test_sizes_may_be_floats_or_unknown(tmp_path: Path) -> None:
    data = copy.deepcopy(GIVEN)
    data["images"][0] |= {"width": 40.0, "height": 30.0}
    data["images"][1] |= {"width": 0, "height": None}
    unknown, known = read_coco(written(images_in(tmp_path), data)).images
    assert (known.size, unknown.size) == ((40, 30), None)


def test_a_photo_of_another_size_is_refused(tmp_path: Path) -> None:
    image = read_coco(written(images_in(tmp_path), GIVEN)).images[0]
    image.check_size((20, 30))
    with pytest.raises(ImageError, match=r"a\.png has 30 x 20 pixels, .* are for 20 x 30"):
        image.check_size((30, 20))


ONE = (
    ({"image_id": 5}, "of an image that is not listed: id 0"),
    ({"image_id": []}, "of an image that is not listed: id 0"),
    ({"category_id": 1}, "of a category that is not listed: id 0"),
    ({"bbox": [1, 2, 3]}, "whose bbox is not x, y, width, height: id 0"),
    ({"bbox": [1, 2, 3, float("nan")]}, "whose bbox is not x, y, width, height: id 0"),
    ({"bbox": [1, 2, 3, 10**400]}, "whose bbox is not x, y, width, height: id 0"),
    ({"bbox": None}, "whose bbox is not x, y, width, height: id 0"),
    ({"bbox": [1, 2, -3, 4]}, "whose bbox has a negative size: id 0"),
    ({"bbox": [50, 2, 3, 4]}, "whose bbox lies outside of the image: id 0"),
    ({"area": "much"}, "whose area is no number of pixels: id 0"),
    ({"iscrowd": 2}, "whose iscrowd is neither 0 nor 1: id 0"),
    ({"id": 1}, "with an id used before: id 1"),
)


@pytest.mark.parametrize(("change", "problem"), ONE)
def test_an_annotation_that_cannot_be_is_named(
    change: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as raised:
        read_coco(written(images_in(tmp_path), changed(**change)))
    assert problem in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_all_problems_are_told_at_once_and_many_of_one_kind_are_counted(tmp_path: Path) -> None:
    data = changed(image_id=5)
    data["images"].append({"id": 10, "file_name": "c.png"})
    data["images"].append({"id": 30})
    data["images"].append({"id": 40.5, "file_name": "d.png"})
    data["images"].append({"id": 50, "file_name": "a.png", "width": "20", "height": 30})
    data["categories"].append({"id": 9, "name": "cat"})
    data["annotations"] += [{"id": k, "image_id": 1} for k in range(50, 60)] + ["none"]
    with pytest.raises(ConfigError) as raised:
        read_coco(written(images_in(tmp_path), data))
    for problem in (
        "images with an id used before: 10",
        "images whose id is no whole number or text: the one at 4",
        "images without a file_name: 30",
        "images of a file that another one has: a.png",
        "images whose width or height is no number of pixels: 50",
        "categories that are called alike: cat",
        "not listed: id 0, id 50, id 51, id 52, id 53 and 6 more",
        "annotations that are no objects of JSON: the one at 12",
    ):
        assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "it lists no images, no categories, no annotations"),
        ('{"images": [], "categories": {}}', "it lists no categories, no annotations"),
        ('{"images": [], "categories": [], "annotations": []}', "lists no images, no cat"),
    ],
)
def test_what_is_no_such_file_is_said(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_coco(written(tmp_path, text))


def test_boxes_of_no_size_are_left_out_and_what_reaches_beyond_is_told(tmp_path: Path) -> None:
    data = changed(bbox=[1, 2, 0, 4])
    data["annotations"][1]["bbox"] = [-3, 0, 20, 20]
    found = read_coco(written(images_in(tmp_path), data))
    assert found.images[1].boxes.tolist() == [[-3, 0, 20, 20]]
    assert found.notes == (
        "1 boxes without any width or height are left out",
        "1 boxes reach beyond their image",
    )


def test_what_roboflow_puts_above_the_classes_is_none(tmp_path: Path) -> None:
    data = copy.deepcopy(GIVEN)
    data["categories"] = [
        {"id": 0, "name": "dog", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "dog"},
        {"id": 7, "name": "dog", "supercategory": "dog"},
    ]
    assert read_coco(written(images_in(tmp_path), data)).classes == ("cat", "dog")
    data["annotations"][0]["category_id"] = 0  # then it is one
    with pytest.raises(ConfigError, match="called alike: dog"):
        read_coco(written(tmp_path, data))


@pytest.mark.parametrize("images", ["", "images", "val2017", "../val2017", "../images"])
def test_images_are_found(images: str, tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    images_in(folder / images)
    found = read_coco(written(folder, GIVEN, "instances_val2017.json"))
    assert all(Path(image.path).is_file() for image in found.images)


def test_images_that_are_nowhere_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no image is there, such as a\.png; looked in"):
        read_coco(written(tmp_path, GIVEN))


def test_splits_are_found_as_tools_lay_them_out(tmp_path: Path) -> None:
    roboflow, coco, one = (tmp_path / name for name in ("roboflow", "coco", "one"))
    for part in ("train", "valid", "test"):
        written(roboflow / part, GIVEN)
    for part in ("train", "val"):
        written(coco / "annotations", GIVEN, f"instances_{part}2017.json")
        written(coco / "annotations", GIVEN, f"captions_{part}2017.json")
    alone = written(one, GIVEN, "labels.json")
    assert list(annotation_files(roboflow)) == ["test", "train", "val"]
    assert list(annotation_files(coco)) == ["train", "val"]
    assert annotation_files(one) == annotation_files(alone) == {"": alone}
    assert list(annotation_files(roboflow / "train")) == [""]
    assert is_coco(roboflow)
    assert is_coco(coco)
    assert is_coco(alone)
    assert not is_coco(one)  # any folder may have one .json


def test_what_has_no_annotations_or_two_of_a_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no annotations in COCO's form; expected"):
        annotation_files(tmp_path)
    assert not is_coco(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        annotation_files(tmp_path / "none")
    photo = images_in(tmp_path) / "a.png"
    with pytest.raises(ConfigError, match=r"a\.png is no \.json"):
        annotation_files(photo)
    assert not is_coco(photo)
    written(tmp_path / "valid", GIVEN)
    (tmp_path / "val").symlink_to("valid")
    assert list(annotation_files(tmp_path)) == ["val"]
    written(tmp_path / "validation", GIVEN)
    with pytest.raises(ConfigError, match=r"has two sets for val, val/.* and validation/"):
        annotation_files(tmp_path)


VALUES: list[Any] = [
    *(None, True, [], {}, "", "x", "\0", "a" * 5000, "../../x", -1, 0, 7, 20, -5.5, 1e308),
    *(10**30, float("nan"), [1, 2, 3, 4], [1, 2, 3, "4"], [[1]], {"a": 1}),
]


def slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each list or object below a value, with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, dict | list):
            yield from slots(inner)


def test_whatever_a_file_says_it_is_read_or_refused_in_a_line(tmp_path: Path) -> None:
    images_in(tmp_path)
    rng, refused = Random(0), list[str]()
    for _ in range(400):
        data = copy.deepcopy(GIVEN)
        for _ in range(rng.randint(1, 3)):
            holder, key = rng.choice(list(slots(data)))
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        try:
            read_coco(written(tmp_path, data)).counts()
        except ConfigError as error:
            refused.append(str(error))
    assert 100 < len(refused) < 400
    assert not [line for line in refused if len(line.splitlines()) > 1]
