"""The studio in a browser: every page, by mouse and by keyboard, and what goes wrong there."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
        assert findings(opened) == []


@pytest.fixture
def desk(browser, server) -> Iterator[Any]:
    with studio(browser, server) as opened:
        yield opened


@contextmanager
def studio(browser, server) -> Iterator[Any]:
    """The studio as one user sees it."""
    with page_at(browser, server.address) as opened:
        opened.get_by_role("button", name="Look").wait_for()
        yield opened


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).first.click()


def upload(page, path: object) -> None:
    """A photo for the page that is shown."""
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
    page.locator(".plots svg polyline").first.wait_for(state="attached")
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


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_every_page_is_for_everybody(browser, server, width, scheme):
    with page_at(browser, server.address, width, scheme) as page:
        page.get_by_role("button", name="Look").wait_for()
        for name in TABS:
            open_tab(page, name)
            page.wait_for_timeout(300)
            screenshot(page, f"studio-{name}-{width}-{scheme}")
            assert fits(page), name
            assert findings(page) == [], name


def test_everything_can_be_reached_with_the_keyboard(desk):
    seen = set()
    name = "e => (e.getAttribute('aria-label') || e.textContent || e.tagName).trim()"
    for _ in range(60):
        desk.keyboard.press("Tab")
        seen.add(desk.evaluate(f"({name})(document.activeElement)"))
    buttons = desk.locator("button:visible:not([disabled])").all()
    wanted = {button.evaluate(name) for button in buttons}
    assert {*TABS, "Look"} <= wanted
    assert not wanted - seen
    desk.get_by_role("button", name="Look").focus()
    desk.keyboard.press("Enter")
    desk.get_by_text("Give a photo first").wait_for()


def test_focus_can_be_seen(desk):
    desk.get_by_role("button", name="Look").focus()
    desk.keyboard.press("Shift+Tab")
    desk.keyboard.press("Tab")
    ring = "getComputedStyle(document.activeElement)"
    assert desk.evaluate(f"{ring}.outlineStyle != 'none' || {ring}.boxShadow != 'none'")


@pytest.mark.parametrize("content", [b"no image", b"\x89PNG\r\n\x1a\n", b""])
def test_a_bad_photo_is_said_and_the_page_goes_on(desk, photo, tmp_path, content):
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    upload(desk, bad)
    desk.get_by_text(re.compile("[Ee]rror|not an image|cannot identify")).first.wait_for()
    desk.reload()
    desk.get_by_role("button", name="Look").wait_for()
    upload(desk, photo)
    desk.get_by_text("Largest difference of a probability").wait_for()


def test_two_users_do_not_see_each_other(browser, server, photo, album):
    with studio(browser, server) as one, studio(browser, server) as other:
        open_tab(other, "Search")
        upload(one, photo)
        upload(other, album[0])
        other.get_by_role("button", name="Search").click()
        other.get_by_text(re.compile(r"1\.000 ")).first.wait_for()
        one.get_by_text("Largest difference of a probability").wait_for()
        assert one.get_by_text(re.compile(r"1\.000 ")).count() == 0
        open_tab(other, "Look")
        assert other.get_by_text("Largest difference of a probability").count() == 0


def test_a_measurement_can_be_stopped(desk, photo):
    open_tab(desk, "Smaller")
    panel = desk.locator("[role=tabpanel]:visible")
    panel.get_by_label("Model").click()
    desk.get_by_role("option", name="shvit_nano.flowers").click()
    panel.get_by_role("button", name="Measure").click()
    desk.get_by_text(re.compile(r"flowers\.none\.mlpackage")).first.wait_for()
    panel.get_by_role("button", name="Stop").click()
    open_tab(desk, "Look")
    upload(desk, photo)
    desk.get_by_text("Largest difference of a probability").wait_for()
    open_tab(desk, "Smaller")
    desk.wait_for_timeout(2000)
    assert desk.get_by_text(re.compile(r"flowers\.palette4")).count() == 0


def test_no_file_outside_is_served(server):
    for path in ("/gradio_api/file=/etc/passwd", f"/gradio_api/file={Path(__file__)}"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(server.address + path)
        with error.value as answer:
            assert answer.code in (403, 404)
