"""The pages as a site: built without a warning, complete, and their Python runs."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest
from PIL import Image

import converters
import ondevice
import ondevice.tasks.load
from ondevice.signature.samples import sample_images

from ..ondevice.models.test_dense import small
from ..ondevice.models.test_detectors import small as detector
from ..ondevice.tasks.train import photos
from ..support.commands import PAGES, ROOT, blocks

WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page.name != "extending.md"]


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-qnW", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Train" in (tmp_path / "api.html").read_text(encoding="utf-8")


TEXTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "apps").rglob("*.md")]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_link_leads_to_a_file(text):
    """Those of texts beside the site, too, which Sphinx does not see."""
    words = re.sub(r"```.*?```|`[^`]*`", "", text.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", words)
    assert not [link for link in links if not (text.parent / link).exists()]


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs/api.rst").read_text(encoding="utf-8")
    said = set(re.findall(r":: (?:[\w.]+\.)?(\w+)$", page, re.M))
    public = {*ondevice._MODULES, *converters.__all__}
    source = (ROOT / "ondevice/__init__.py").read_text(encoding="utf-8")
    public |= {a for a, b in re.findall(r"(\w+) as (\w+)", source) if a == b}
    modules = {"cpu", "models"}
    assert not public - modules - said - {"OnDeviceError"}  # with the other errors


def test_what_pages_import_is_in_the_reference():
    reference = (ROOT / "docs/api.rst").read_text(encoding="utf-8")
    said = {path.rpartition(".")[2] for path in re.findall(r":: ([\w.]+)$", reference, re.M)}
    imported = {
        alias.name
        for page in WITH_PYTHON
        for block in blocks(page, "python")
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("ondevice", "converters")
        for alias in node.names
    }
    assert {"predict", "draw_boxes", "export"} <= imported
    assert not imported - said


def test_what_is_in_the_reference_says_what_it_is():
    reference = (ROOT / "docs/api.rst").read_text(encoding="utf-8")
    undocumented, module = [], ""
    for kind, name in re.findall(r"\.\. (\w+):: ([\w.]+)$", reference, re.M):
        if kind == "currentmodule":
            module = name
        elif kind != "automodule":
            path = name if "." in name else f"{module}.{name}"
            where, _, own = path.rpartition(".")
            found = getattr(import_module(where), own)
            names = [n for n in vars(found) if n[0] != "_"] if inspect.isclass(found) else []
            parts = [getattr(found, n) for n in names]
            methods = (p for p in parts if inspect.isfunction(p) and p.__name__ != "<lambda>")
            undocumented += [f"{name}: {p}" for p in (found, *methods) if not p.__doc__]
    assert not undocumented


@pytest.fixture
def small_models(monkeypatch):
    """What pages would download of models of boxes, depth and masks is made, and small."""
    sizes = {"depth_anything_v2_small": 56, "segformer_b0": 64}

    def load(name):
        if name.startswith("rtdetr"):
            return detector()
        if name not in sizes:
            return ondevice.tasks.load.load(name)
        model = small(name)
        spec = replace(model.info.preprocess, size=sizes[name])
        model.info = replace(model.info, preprocess=spec)
        return model

    monkeypatch.setattr(ondevice, "load", load)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, small_models):
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
