"""The studio in a browser: every page, by mouse and by keyboard, and what goes wrong there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ondevice import create_model
from ondevice.cli.studio.workshop import SHIPPED
from ondevice.signature.samples import sample_images
from ondevice.tasks.embeddings.encode import encode

from ....support.browser import (
    BEYOND,
    WIDTHS,
    driver,
    findings,
    need_browser,
    page_at,
    screenshot,
)
from .server import Server, serving

TABS = ("Look", "Find", "Words", "Search", "Smaller", "Inside")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    need_browser("gradio")
    with driver() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(browser, dense, clip, tmp_path_factory) -> Iterator[Server]:
    """A studio with a model of each kind and an index."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("album")
    for n, pixels in enumerate(sample_images(120)):
        Image.fromarray(pixels).save(folder / f"{n}.png")
    index = folder / "index.safetensors"
    encode(create_model(SHIPPED[0], pretrained=True), sorted(folder.glob("*.png")), index)
    models = [word for path in (*dense.values(), clip) for word in ("--model", path)]
    with serving(*models, "--index", index) as running:
        yield running


@pytest.fixture(params=WIDTHS)
def page(request, browser, server) -> Iterator[Any]:
    with page_at(browser, server.address, request.param) as opened:
        opened.get_by_role("button", name="Look").wait_for()
        yield opened
        screenshot(opened, f"studio-{request.node.name}")


@pytest.fixture
def desk(browser, server) -> Iterator[Any]:
    with page_at(browser, server.address) as opened:
        opened.get_by_role("button", name="Look").wait_for()
        yield opened


def open_tab(page, name: str) -> None:
    page.keyboard.press("Escape")
    tab = page.get_by_role("tab", name=name)
    if not tab.first.is_visible():  # on a phone the last ones are in a menu
        page.locator(".overflow-menu > button").first.click()
        page.locator(".overflow-dropdown button", has_text=name).click()
        return
    tab.first.click()


def upload(page, path: object) -> None:
    """A photo for the page that is shown."""
    page.locator("input[type=file]:not([disabled])").locator(
        "xpath=ancestor::*[@role='tabpanel' and not(contains(@style,'none'))]"
    ).first.wait_for(state="attached")
    panel = page.locator("[role=tabpanel]:visible")
    panel.locator("input[type=file]").first.set_input_files(str(path))


def fits(page) -> bool:
    """Whether nothing is wider than the page."""
    return page.evaluate(BEYOND) <= 0


def test_a_photo_is_looked_at(page, photo):
    upload(page, photo)
    page.get_by_text("Largest difference of a probability").wait_for()
    page.get_by_text(re.compile(r"^cropped 96x96$")).first.wait_for()
    assert fits(page)


def test_boxes_are_found(page, photo):
    open_tab(page, "Find")
    upload(page, photo)
    page.locator("[role=tabpanel]:visible img[src*='/file=']").nth(1).wait_for()
    assert fits(page)


def test_typed_words_are_compared(page, photo):
    open_tab(page, "Words")
    upload(page, photo)
    page.get_by_label("Labels, with commas between them").fill("cat, dog")
    page.get_by_role("button", name="Compare").click()
    page.locator("[role=tabpanel]:visible").get_by_text("cat", exact=True).first.wait_for()
    assert fits(page)


def test_similar_photos_are_found(page, photo):
    open_tab(page, "Search")
    upload(page, photo)
    page.get_by_role("button", name="Search").click()
    page.get_by_text(re.compile(r"0\.\d{3} ")).first.wait_for()
    assert fits(page)


def test_smaller_packages_are_measured_and_can_be_had(page):
    open_tab(page, "Smaller")
    for recipe in ("palette6", "palette4"):
        page.get_by_label(recipe, exact=True).uncheck()
    page.get_by_role("button", name="Measure").click()
    page.get_by_text(re.compile(r"int8\.mlpackage")).first.wait_for()
    page.locator(".plot svg polyline").first.wait_for(state="attached")
    with page.expect_download() as download:
        page.locator("a[download]").last.click()
    with open(download.value.path(), "rb") as file:
        assert file.read(2) == b"PK"
    assert fits(page)


def test_a_package_is_opened_and_its_graph_grows(page):
    open_tab(page, "Inside")
    page.get_by_role("button", name="Open").click()
    page.get_by_text("and later").wait_for()
    page.get_by_text("channels-not-of-sixteen").first.wait_for(state="attached")
    graph = page.locator(".drawing svg")
    before = graph.bounding_box()["width"]
    zoom = page.get_by_label(re.compile("Zoom of the graph")).first
    zoom.fill("200")
    zoom.press("Enter")
    page.wait_for_function(
        "w => document.querySelector('.drawing svg').clientWidth > 1.9 * w", arg=before
    )
    assert fits(page)


def test_every_page_is_for_everybody(browser, server):
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            with page_at(browser, server.address, width, scheme) as page:
                page.get_by_role("button", name="Look").wait_for()
                for name in TABS:
                    open_tab(page, name)
                    page.wait_for_timeout(300)
                    screenshot(page, f"studio-{name}-{width}-{scheme}")
                    assert fits(page), name
                    assert findings(page) == [], f"{name} {width} {scheme}"
