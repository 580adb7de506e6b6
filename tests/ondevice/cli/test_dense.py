"""``ondevice depth``, ``segment`` and ``detect``, with small networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ondevice import save_model

from ...ondevice.models.test_dense import small
from ...ondevice.models.test_detectors import small as detector


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved models by command, for images small enough to be quick."""
    from dataclasses import replace

    found = {}
    for command, name in COMMANDS.items():
        model = detector(name) if command == "detect" else small(name)
        spec = replace(model.info.preprocess, size=SIZES[command])
        model.info = replace(model.info, preprocess=spec)
        found[command] = tmp_path_factory.mktemp("models") / command
        save_model(model, found[command])
    return found


COMMANDS = {
    "depth": "depth_anything_v2_small",
    "segment": "segformer_b0",
    "detect": "rtdetr_r18vd",
}
SIZES = {"depth": 56, "segment": 64, "detect": 96}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (80, 60)), ("b.jpg", (50, 90)), ("more/a.png", (64, 64))):
        pixels = rng.integers(0, 256, (*size[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_one_photo_is_drawn_in_its_own_size(command, folders, photos, tmp_path, ondevice_):
    out = tmp_path / "x.png"
    args = (command, photos / "a.png", "--model", folders[command], "--out", out)
    status, _, _ = ondevice_(*args)
    assert status == 0
    with Image.open(out) as drawn:
        assert drawn.size == (80, 60)
    status, _, err = ondevice_(*args)
    assert status == 2
    assert "exists; use --force" in err
    assert ondevice_(*args, "--force")[0] == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_is_drawn_into_a_folder(command, folders, photos, tmp_path, ondevice_):
    out = tmp_path / "drawn"
    (photos / "broken.png").write_text("no image")
    args = (command, photos, "--model", folders[command], "--out", out, "--json")
    status, text, err = ondevice_(*args)
    said = json.loads(text)
    assert status == 3
    assert "1 of 4 files skipped" in err
    assert len(said["skipped"]) == 1
    assert sorted(p.name for p in out.iterdir()) == ["a-2.png", "a.png", "b.png"]
    listed = said.get("images") or said["results"]
    assert sorted(row["drawing"] for row in listed) == sorted(map(str, out.iterdir()))


def test_depth_says_how_large_it_gets(folders, photos, ondevice_):
    status, text, _ = ondevice_("depth", photos, "--model", folders["depth"], "--json")
    first = json.loads(text)["results"][0]
    assert status == 0
    assert first["shape"] == [60, 80]
    assert 0 <= first["min"] < first["max"]


def test_masks_are_in_cocos_form(folders, photos, ondevice_):
    _, text, _ = ondevice_("segment", photos, "--model", folders["segment"], "--json")
    said = json.loads(text)
    assert [image["file_name"][-5:] for image in said["images"]] == ["a.png", "b.jpg", "a.png"]
    assert len(said["categories"]) == 7
    for image in said["images"]:
        own = [a for a in said["annotations"] if a["image_id"] == image["id"]]
        assert sum(a["area"] for a in own) == image["width"] * image["height"]
        for each in own:
            counts = each["segmentation"]["counts"]
            assert sum(counts[1::2]) == each["area"]
    assert len({a["id"] for a in said["annotations"]}) == len(said["annotations"])


def test_objects_are_in_cocos_form(folders, photos, ondevice_):
    args = ("detect", photos, "--model", folders["detect"], "--threshold", 0.2, "--json")
    status, text, _ = ondevice_(*args)
    said = json.loads(text)
    assert status == 0
    assert [c["name"] for c in said["categories"]] == list("abcde")
    assert len(said["annotations"]) > 5
    sizes = {image["id"]: (image["width"], image["height"]) for image in said["images"]}
    for each in said["annotations"]:
        x, y, width, height = each["bbox"]
        assert each["score"] >= 0.2
        assert x >= 0
        assert x + width <= sizes[each["image_id"]][0] + 0.01
        assert y + height <= sizes[each["image_id"]][1] + 0.01
    sure = json.loads(ondevice_(*args[:-2], 0.9, "--json")[1])
    assert len(sure["annotations"]) < len(said["annotations"])


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("depth", "{photos}/a.png", "--out", "drawn"), "of one image it is a .png file"),
        (("depth", "{photos}", "--out", "x.png"), "of 3 images it is a folder"),
        (("depth", "{photos}", "--model", "{segment}"), "gives no depth: it gives mask"),
        (("segment", "{photos}", "--model", "shvit_nano.cifar10"), "gives no mask"),
        (("depth", "{photos}/more/none.png"), "cannot be opened"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(args, problem, folders, photos, ondevice_):
    given = [a.format(photos=photos, **folders) for a in args]
    model = () if "--model" in given else ("--model", folders[args[0]])
    status, out, err = ondevice_(*given, *model)
    assert (status, out) == (2, "")
    assert problem in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_without_json_there_is_a_table(command, folders, photos, ondevice_):
    status, out, _ = ondevice_(command, photos, "--model", folders[command])
    header, *rows = out.splitlines()
    assert status == 0
    assert header.startswith("image")
    assert len(rows) == 3


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("other", ["classify", "encode"])
def test_other_commands_refuse_such_a_model(command, other, folders, photos, ondevice_):
    out = ("--out", photos / "e.safetensors") if other == "encode" else ()
    status, _, err = ondevice_(other, photos / "a.png", "--model", folders[command], *out)
    assert status == 2
    assert " no " in err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
