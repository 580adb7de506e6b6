"""Every report on a phone and a desk, in light and dark, on paper, and without a mouse."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from converters.verification.drawing import draw_program
from converters.verification.html import inspection_to_html, to_html
from converters.verification.inspect import inspect
from ondevice.tasks.train.dataset import Sample
from ondevice.tasks.train.evaluate import Comparison, figures
from ondevice.tasks.train.history import Epoch, to_html as history_to_html
from ondevice.tasks.train.report import to_html as evaluation_to_html

from ...ondevice.tasks.train import photos
from ...support.browser import (
    BEYOND,
    WIDTHS,
    driver,
    findings,
    need_browser,
    page_at,
    screenshot,
)
from .page import Checked

NAMES = ("verified", "missed", "inspected", "evaluated", "trained")
CLASSES = [f"class of flowers {i}" for i in range(9)]


@pytest.fixture(scope="module")
def reports(report, failed, package, nano, tmp_path_factory):
    """Each kind of report as a file, in a folder of its own."""
    unit = {"units": "CPU_AND_NE", "first_load_ms": 310.0, "median_ms": 1.25, "spread_ms": 0.1}
    unit |= {"placement": {"Neural Engine": 170, "CPU": 3}, "fallen_off": ["cast image_cast"]}
    inside, folder = inspect(package), tmp_path_factory.mktemp("reports")
    pages = {
        "verified": to_html(report, inside),
        "missed": to_html(replace(failed, device={"name": "M2", "units": [unit]}), inside),
        "inspected": inspection_to_html(inside, draw_program(package)),
        "evaluated": evaluation(folder),
        "trained": history_to_html(list(history()), nano.info),
    }
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


def evaluation(folder):
    """Two models of nine classes, with mistakes that have photos."""
    path = folder / "a photo with a rather long name of its own.png"
    photos.photo((90, 160, 60), 0).save(path)
    rng = np.random.default_rng(0)
    samples = [Sample(str(path), i % 9) for i in range(90)]
    labels = np.array([s.label for s in samples])
    right = 4 * np.eye(9)[labels]
    logits = [right + rng.normal(0, spread, right.shape) for spread in (1.5, 2.5)]
    found = [
        figures(name, tuple(CLASSES), x, samples)
        for name, x in zip(("flowers/", "Flowers.mlpackage"), logits, strict=True)
    ]
    return evaluation_to_html(
        found, [Comparison("flowers/", "Flowers.mlpackage", 0.9, 5, 3, 0.7)]
    )


def history():
    for n in range(1, 13):
        yield Epoch(n, 1e-3 / n, 2 / n, 2.2 / n, 1 - 0.8 / n, 3.5, 120.0)


@pytest.fixture(scope="module")
def browser():
    need_browser()
    with driver() as opened:
        yield opened


@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_whole_and_has_one_stylesheet(reports, name):
    text = (reports / f"{name}.html").read_text(encoding="utf-8")
    page = Checked(text)
    assert text.startswith("<!doctype html>")
    assert page.tags.count("style") == 1
    assert "script" not in page.tags
    assert all(link.startswith("data:") for link in page.links)
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"\sstyle=\"(?!width: ?[\d.]+(%|px))", text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_for_everybody(browser, reports, name, width, scheme):
    address = (reports / f"{name}.html").as_uri()
    with page_at(browser, address, width, scheme) as page:
        screenshot(page, f"report-{name}-{width}-{scheme}")
        assert page.evaluate(BEYOND) <= 0
        assert findings(page) == []
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("name", NAMES)
def test_a_report_in_the_dark_is_printed_on_white(browser, reports, name):
    with page_at(browser, (reports / f"{name}.html").as_uri(), 780, "dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == "rgb(255, 255, 255)"
        scrolled = "[...document.querySelectorAll('.scroll')]"
        overflows = page.evaluate(f"{scrolled}.map(s => getComputedStyle(s).overflowX)")
        assert set(overflows) == {"visible"}
