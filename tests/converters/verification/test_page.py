"""The report of a comparison, as a page and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from converters.verification.html import inspection_to_html, to_html, write_html
from converters.verification.inspect import inspect
from ondevice.errors import OutputError
from ondevice.pages import Axis, Curve, plot
from ondevice.pages.graph import Node, draw

from .page import Checked


def test_the_page_has_the_figures_and_loads_nothing(report, package):
    text = to_html(report, inspect(package))
    page = Checked(text)
    assert page.links == []
    assert "script" not in page.tags
    assert "://" not in text.replace(report.package, "").split("<h2>Package")[0]
    for step in report.steps:
        assert f"{step.comparisons[0].psnr_db:.1f}" in page.text
        assert step.name in page.text
    assert page.tags.count("polyline") == 3
    assert page.tags.count("circle") == sum(len(step.deviations) for step in report.steps)
    for word in ("passed", "mit", "image 3", "173 operations", "coremltools 9.0", "gate 55 dB"):
        assert word in page.text


def test_the_page_marks_where_the_error_jumps(failed, package):
    text = to_html(failed, inspect(package))
    Checked(text)
    assert text.count('class="mark"') == 1
    assert "conv stages_1_blocks_0_conv" in text
    assert "failed" in text


EVIL = "<script>alert(1)</script>'\"&"


def test_names_from_a_strangers_package_are_only_text(report, package):
    found = replace(inspect(package), metadata={EVIL: EVIL, "ondevice.versions": "[1"})
    found = replace(found, operations={EVIL: 1, **found.operations}, target=EVIL)
    steps = [
        replace(
            step,
            deviations=tuple(replace(d, name=EVIL, op=EVIL) for d in step.deviations),
            comparisons=tuple(
                replace(
                    c,
                    output=EVIL,
                    worst_image=EVIL,
                    per_image=tuple(replace(row, image=EVIL) for row in c.per_image),
                )
                for c in step.comparisons
            ),
        )
        for step in report.steps
    ]
    unit = {"units": EVIL, "first_load_ms": 1.0, "median_ms": 1.0, "spread_ms": 1.0}
    unit |= {"placement": {EVIL: 1}, "fallen_off": [EVIL]}
    evil = replace(report, package=EVIL, model=EVIL, notes=(EVIL,), problems=(EVIL,))
    evil = replace(evil, steps=tuple(steps), device={"name": EVIL, "units": [unit]})
    page = Checked(to_html(replace(evil, versions={EVIL: EVIL}), found))
    assert "script" not in page.tags
    assert page.text.count("alert(1)") > 20


def test_a_plot_is_markup_whatever_its_texts_are():
    axis = Axis(EVIL, 0, 1, [(0, EVIL)])
    svg = plot([Curve([(0, 0), (1, 1)], [EVIL, EVIL], 1)], axis, axis, limit=(0.5, EVIL))
    tree = ElementTree.fromstring(svg)
    assert {element.tag for element in tree.iter()} == {
        *("svg", "g", "line", "text", "polyline", "circle", "title"),
    }
    assert sum(element.text == EVIL for element in tree.iter()) == 8
    assert tree.get("aria-label") == f"{EVIL} by {EVIL}"


def test_the_page_shows_what_a_mac_measured(report, package):
    unit = {"units": "CPU_AND_NE", "first_load_ms": 310.0, "median_ms": 1.25, "spread_ms": 0.1}
    unit |= {"placement": {"Neural Engine": 170, "CPU": 3}, "fallen_off": ["cast image_cast"]}
    page = Checked(
        to_html(replace(report, device={"name": "Apple M2", "units": [unit]}), inspect(package))
    )
    for word in ("Apple M2", "310.0", "1.25", "Neural Engine 170, CPU 3", "cast image_cast"):
        assert word in page.text


def test_the_page_is_written_whole_or_not_at_all(report, package, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_html(report, package, path)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="--force"):
        write_html(report, package, path)
    monkeypatch.setattr("converters.verification.html.to_html", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_html(report, package, path, force=True)
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_a_stable_shape(report):
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found.keys() == {
        *("model", "package", "images", "steps", "problems", "notes", "versions", "device"),
        *("passed", "failures", "against", "precision"),
    }
    step = found["steps"][-1]
    assert step.keys() == {
        *("name", "precision", "run_on", "package_bytes", "comparisons", "gates", "deviations"),
        *("passed", "failures", "worst_image", "jump"),
    }
    assert step["deviations"][0].keys() == {"name", "op", "before_db", "after_db"}
    assert step["comparisons"][0].keys() == {
        *("output", "cosine", "psnr_db", "max_error", "relative_error", "finite", "comparable"),
        *("worst_image", "spread_db", "top1_agreement", "top5_agreement", "per_image"),
        *("kind", "of_kind"),
    }


def test_a_strangers_package_is_inspected_as_text(package):
    found = replace(
        inspect(package), path=EVIL, metadata={EVIL: EVIL, "ondevice.versions": "1"}
    )
    found = replace(found, operations={EVIL: 1, **found.operations}, target=EVIL)
    weights = tuple(replace(weight, name=EVIL, format=EVIL) for weight in found.weights)
    graph = draw([Node(EVIL, EVIL, EVIL, EVIL, (), "")], EVIL)
    page = Checked(inspection_to_html(replace(found, weights=weights), graph))
    assert "script" not in page.tags
    assert page.text.count("alert(1)") > 20


def test_inspect_writes_a_page_and_what_it_prints(package, tmp_path, ondevice_):
    path = tmp_path / "inside.html"
    status, said, err = ondevice_("inspect", package.path, "--html", path)
    assert status == 0, err
    page = Checked(path.read_text(encoding="utf-8"))
    assert page.links == []
    found = inspect(package)
    assert f"{found.operation_count} operations, of which" in page.text
    for finding in found.findings:
        assert finding.rule in page.text
        assert finding.rule in said
    status, said, err = ondevice_("inspect", package.path, "--html", path)
    assert status == 2
    assert "--force" in err
    assert said == ""
