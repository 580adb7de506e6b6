"""Which files of a folder are images, and what becomes of those that cannot be read."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from ondevice.errors import ImageError
from ondevice.image.files import expand
from ondevice.image.open import open_image

IMAGES = ("a.avif", "b.jfif", "c.heic", "d.HEIF", "e.JPG", "f.jpe", "g.jxl", "h.tiff")
LITTER = (
    "._a.png",
    ".hidden.jpg",
    ".git/objects/x.png",
    "__MACOSX/._a.png",
    "__MACOSX/a.png",
    "@eaDir/thumb.jpg",
    "Thumbs.db",
    "desktop.ini",
    "notes.md",
    "list.txt",
)


@pytest.fixture
def folder(tmp_path):
    for name in (*IMAGES, *LITTER, "deep/er/z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_has_all_images_and_no_litter(folder):
    found = [os.path.relpath(path, folder) for path in expand([str(folder)])]
    assert found == sorted([*IMAGES, "deep/er/z.png"], key=os.fsencode)


def test_a_pattern_enters_no_litter_unless_it_names_it(folder):
    found = [os.path.relpath(p, folder) for p in expand([f"{folder}/**/*.png"])]
    assert found == ["deep/er/z.png"]
    assert list(expand([f"{folder}/__MACOSX/*.png"])) == [f"{folder}/__MACOSX/a.png"]
    assert f"{folder}/Thumbs.db" not in list(expand([f"{folder}/*"]))


def test_what_leads_in_circles_is_given_once_and_says_so(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/again").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/self.png").symlink_to(tmp_path / "photos/self.png")
    (tmp_path / "photos/gone.png").symlink_to(tmp_path / "gone.png")
    found = list(expand([str(tmp_path / "photos")]))
    assert [os.path.basename(path) for path in found] == ["again", "gone.png", "self.png"]
    for path, said in zip(
        found, ("is a link to a folder", "No such file", "symbolic links"), strict=True
    ):
        with pytest.raises(ImageError, match=said):
            open_image(path)


def test_a_folder_that_may_not_be_read_is_named_and_the_others_are_not_lost(
    tmp_path, monkeypatch
):
    for name in ("locked/a.png", "open/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    access = os.access  # root may read everything
    monkeypatch.setattr(
        os, "access", lambda path, mode: "locked" not in str(path) and access(path, mode)
    )
    assert list(expand([str(tmp_path)])) == [f"{tmp_path}/locked", f"{tmp_path}/open/b.png"]
    with pytest.raises(ImageError, match="locked is a folder that may not be read"):
        open_image(tmp_path / "locked")
