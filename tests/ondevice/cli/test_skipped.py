"""One rule for files that cannot be used, over all commands that take images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from converters import export
from ondevice import create_model
from ondevice.cli import COMMANDS, cli
from ondevice.cli._images import SKIPS

BAD = {
    "broken.png": b"no image",
    "cut.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "empty.avif": b"",
}
# What is left to the user: not named, not counted.
LITTER = ("._good0.png", "__MACOSX/good0.png", ".git/x.png", "Thumbs.db", "notes.md")


@pytest.fixture
def folder(tmp_path):
    """Ten images, three files that are none, and litter."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(10):
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"good{n}.png")
    for name, data in BAD.items():
        (folder / name).write_bytes(data)
    for name in LITTER:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"litter")
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    return export(create_model("shvit_nano.cifar10"), folder / "n.mlpackage")


@pytest.fixture
def commands(package, tmp_path):
    """The beginning of each command line that takes several images, and how it takes them."""
    return {
        "classify": (["classify", "--json"], "each"),
        "encode": (["encode", "--json", "--out", tmp_path / "e.npz"], "folder"),
        "verify": (["verify", package, "--json", "--no-baselines", "--images"], "folder"),
        "demo": (["demo", "--json", "--out", tmp_path / "demo"], "each"),
        "export": (
            [
                "export",
                "shvit_nano",
                "--json",
                "--out",
                tmp_path / "x.mlpackage",
                "--calibrate",
            ],
            "folder",
        ),
    }


TAKES = ("classify", "encode", "verify", "demo", "export")


def given(folder, how):
    """A folder, or its files one by one."""
    return [folder] if how == "folder" else sorted(p for p in folder.iterdir() if ok(p))


def ok(path):
    return path.name.startswith("good") or path.name in BAD


@pytest.mark.parametrize("name", TAKES)
def test_the_run_finishes_names_and_counts_them_with_status_3(
    name, commands, folder, ondevice_
):
    line, how = commands[name]
    status, out, err = ondevice_(*line, *given(folder, how))
    assert status == 3
    skipped = json.loads(out)["skipped"]
    said = err.splitlines()
    assert said[-1] == "3 of 13 files skipped"
    assert [line.split()[1] for line in said[-4:-1]] == [f"{folder}/{n}" for n in sorted(BAD)]
    assert [f"skipped: {reason}" for reason in skipped] == said[-4:-1]
    assert "litter" not in err


@pytest.mark.parametrize("name", TAKES)
def test_if_nothing_can_be_used_it_is_status_2(name, commands, folder, ondevice_, tmp_path):
    line, how = commands[name]
    for path in folder.glob("good*"):
        path.unlink()
    status, out, err = ondevice_(*line, *given(folder, how))
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    for bad in BAD:
        assert f"{folder}/{bad}" in err
    assert not (tmp_path / "x.mlpackage").exists()


@pytest.mark.parametrize("name", TAKES)
def test_one_file_that_cannot_be_used_is_one_line_and_status_2(
    name, commands, folder, ondevice_
):
    line, _ = commands[name]
    status, out, err = ondevice_(*line, folder / "broken.png")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {folder}/broken.png is not an image")


@pytest.mark.parametrize("name", ["encode", "verify", "export"])
def test_a_folder_without_images_is_status_2(name, commands, ondevice_, tmp_path):
    line, _ = commands[name]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "._a.png").touch()
    status, out, err = ondevice_(*line, tmp_path / "none")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "none has no images" in err


def test_every_command_with_images_says_so():
    said = {
        name
        for name in COMMANDS
        if SKIPS in str(getattr(cli.get_command(None, name), "epilog", ""))
    }
    assert said == {
        "classify",
        "zeroshot",
        "describe",
        "encode",
        "verify",
        "demo",
        "export",
        "evaluate",
        "detect",
        "depth",
        "segment",
    }
