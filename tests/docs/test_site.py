"""The pages as a site: built without a warning, complete, and their Python runs."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from PIL import Image

import converters
import ondevice
from ondevice.signature.samples import sample_images

from ..ondevice.tasks.train import photos
from ..support.commands import PAGES, ROOT, blocks

WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page.name != "extending.md"]


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-qW", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Train" in (tmp_path / "api.html").read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs/api.rst").read_text(encoding="utf-8")
    said = set(re.findall(r":: (?:[\w.]+\.)?(\w+)$", page, re.M))
    public = {*ondevice._MODULES, *converters.__all__}
    source = (ROOT / "ondevice/__init__.py").read_text(encoding="utf-8")
    public |= {a for a, b in re.findall(r"(\w+) as (\w+)", source) if a == b}
    modules = {"cpu", "models"}
    assert not public - modules - said - {"OnDeviceError"}  # with the other errors


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    photos.write(tmp_path / "photos", 8)
    Image.fromarray(sample_images(150)[0]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


def test_messages_on_the_page_of_symptoms_are_ours():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = [
        q
        for cell in re.findall(r"^\| (\".*?) \|", page, re.M)
        for q in re.findall(r'"(.+?)"', cell)
    ]
    code = "".join(
        path.read_text(encoding="utf-8")
        for tree in ("ondevice", "converters")
        for path in (ROOT / tree).rglob("*.py")
    )
    assert len(quoted) > 5
    assert not [text for text in quoted if text not in re.sub(r'"\n\s*f?"', "", code)]
