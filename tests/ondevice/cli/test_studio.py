"""``ondevice studio``: what it computes, and the page in a browser, where there is one."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ondevice.cli import run
from ondevice.cli.studio.workshop import PACKAGES, PLAIN, SAMPLES, Workshop
from ondevice.errors import ConfigError, ImageError
from ondevice.signature.samples import sample_images

MODEL = "shvit_nano.cifar10"
WIDTHS = (390, 1440)
BEYOND = "document.documentElement.scrollWidth - window.innerWidth"  # pixels of the page


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    Image.fromarray(sample_images(300)[1]).save(path)
    return str(path)


def test_a_photo_goes_through_the_model_and_both_packages(tmp_path, photo):
    found = Workshop(tmp_path).look(MODEL, "int8", photo)
    assert [sum(s.values()) for s in (found.model, found.package, found.compressed)] == (
        pytest.approx([1, 1, 1], abs=2e-3)
    )
    assert found.apart(found.package) < 5e-3
    assert 0 < found.apart(found.package) < found.apart(found.compressed) < 0.1
    assert [text.split()[0] for _, text in found.steps] == (
        "upright reduced resized cropped".split()
    )
    assert found.heat.size == (384, 384)


def test_what_compression_costs_is_said_one_by_one(tmp_path):
    costs = list(Workshop(tmp_path).costs(MODEL, [PLAIN, "palette4"], []))
    assert [cost.recipe for cost in costs] == [PLAIN, "palette4"]
    assert costs[0].bytes > 3 * costs[1].bytes
    assert costs[0].psnr_db > 55 > costs[1].psnr_db
    assert [1 - len(cost.changed) / SAMPLES for cost in costs] == [c.same_class for c in costs]
    assert all(re.fullmatch(r"\w+ → \w+", text) for cost in costs for _, text in cost.changed)


def test_packages_that_nobody_uses_are_given_up(tmp_path, monkeypatch):
    workshop = Workshop(tmp_path)
    monkeypatch.setattr(workshop._packages, "most", 1)
    first = workshop.package(MODEL)
    assert workshop.package(MODEL) is first
    second = workshop.package(MODEL, "int8")
    assert not first.path.exists()
    assert second.path.exists()
    assert PACKAGES > 1


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda w, bad: w.look(MODEL, PLAIN, bad), ImageError, "is not an image"),
        (lambda w, bad: w.model("/etc"), ConfigError, "is not offered"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, call, error, said):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"x")
    with pytest.raises(error, match=said):
        call(Workshop(tmp_path / "work"), str(bad))


def test_a_missing_extra_is_said(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "ondevice.cli.studio.page", raising=False)
    assert run(["studio", "--no-browser"]) == 2
    assert "pip install 'ondevice[studio]'" in capsys.readouterr().err


def browser() -> str | None:
    return next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("gradio")
    pytest.importorskip("playwright")
    if browser() is None:
        pytest.skip("no Chromium")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ondevice", "studio", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address)
        yield address
    finally:
        server.terminate()
        server.wait()


def _wait_for(address: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the studio does not answer")


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, address: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": request.param, "height": 900})
        page.set_default_timeout(120_000)
        page.problems = []
        page.on("request", lambda r: _check_request(page, r.url, address))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(address)
        page.get_by_role("button", name="Look").wait_for()
        yield page
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(exist_ok=True)
            page.screenshot(path=f"{folder}/{request.node.name}.png", full_page=True)
        opened.close()
        assert page.problems == []


def _check_request(page, url: str, address: str) -> None:
    if not url.startswith((address, "data:", "blob:")):
        page.problems.append(f"{url} is not on this machine")


def test_a_photo_is_looked_at(page, photo):
    page.locator("input[type=file]").first.set_input_files(photo)
    page.get_by_text("Largest difference of a probability").wait_for()
    page.get_by_text(re.compile(r"^cropped 96x96$")).first.wait_for()
    assert page.evaluate(BEYOND) <= 0


def test_a_bad_photo_is_said_and_the_page_goes_on(page, photo, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    page.locator("input[type=file]").first.set_input_files(str(bad))
    page.get_by_text(re.compile("[Ee]rror|not an image|cannot identify")).first.wait_for()
    page.reload()
    page.get_by_role("button", name="Look").wait_for()
    page.get_by_role("button", name="Look").click()
    page.get_by_text("Give a photo first").wait_for()


def test_smaller_packages_are_measured_and_can_be_had(page):
    page.get_by_role("tab", name="Smaller").click()
    for recipe in ("palette6", "palette4"):
        page.get_by_label(recipe, exact=True).uncheck()
    page.get_by_role("button", name="Measure").click()
    page.get_by_text(re.compile(r"int8\.mlpackage")).first.wait_for()
    page.locator(".curve svg polyline").first.wait_for(state="attached")
    with page.expect_download() as download:
        page.locator("a[download]").last.click()
    with open(download.value.path(), "rb") as file:
        assert file.read(2) == b"PK"


def test_a_package_is_opened(page):
    page.get_by_role("tab", name="Inside").click()
    page.get_by_role("button", name="Open").click()
    page.get_by_text("and later").wait_for()
    page.get_by_text("channels-not-of-sixteen").first.wait_for(state="attached")
    assert page.evaluate(BEYOND) <= 0


def test_no_file_outside_is_served(address):
    for path in ("/gradio_api/file=/etc/passwd", f"/gradio_api/file={Path(__file__)}"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(address + path)
        assert error.value.code in (403, 404)
