"""The golden files of the Swift package are what Python computes today."""

from __future__ import annotations

import json
from html.entities import html5

import pytest

from . import goldens, html_entities

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("goldens")
    goldens.written(folder)
    return folder


def numbers_apart(value):
    """``value`` with a 0 for each float, and all floats."""
    floats = []

    def visit(x):
        if isinstance(x, float):
            floats.append(x)
            return 0.0
        if isinstance(x, dict):
            return {key: visit(item) for key, item in x.items()}
        return [visit(item) for item in x] if isinstance(x, list) else x

    return visit(value), floats


def test_no_file_is_missing_or_left_over(folder):
    assert {p.name for p in goldens.FOLDER.iterdir()} == {p.name for p in folder.iterdir()}


TABLES = "boxes detections index palette pixels predictions tokenizer tokens unit".split()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_as_committed(folder, name):
    now, then = (json.loads((f / f"{name}.json").read_text()) for f in (folder, goldens.FOLDER))
    (texts, floats), (old_texts, old_floats) = numbers_apart(now), numbers_apart(then)
    assert texts == old_texts
    assert floats == pytest.approx(old_floats, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["index", "unit"])
def test_an_index_is_as_committed(folder, name):
    file = f"{name}.safetensors"
    assert (folder / file).read_bytes() == (goldens.FOLDER / file).read_bytes()


def test_each_named_character_is_in_the_source():
    assert html_entities.source() == html_entities.FILE.read_text(encoding="utf-8")
    assert all(html5.get(f"{n};") == html5[n] for n in html5 if not n.endswith(";"))
