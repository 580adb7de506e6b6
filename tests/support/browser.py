"""Pages in a real browser, where there is one: Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (390, 1440)  # pixels: a phone and a desk
NAMES = ("chromium", "chromium-browser", "google-chrome")
BEYOND = "document.documentElement.scrollWidth - window.innerWidth"  # pixels of the page
SERIOUS = {"serious", "critical"}  # impacts, as axe calls them


def need_browser(*modules: str) -> None:
    """Skip where a page cannot be opened, or one of ``modules`` is not installed."""
    for module in ("playwright", "axe_playwright_python", *modules):
        pytest.importorskip(module)
    if chromium() is None:
        pytest.skip("no Chromium")


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def driver() -> Iterator[Any]:
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@contextmanager
def page_at(browser: Any, address: str, width: int = 1440, scheme: str = "light") -> Iterator:
    """A page that asks for nothing from elsewhere and throws no error."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(60_000)
    problems: list[str] = []
    own = address if address.startswith("http") else "file:"
    ours = (own, "data:", "blob:")
    page.on("request", lambda r: r.url.startswith(ours) or problems.append(r.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert problems == [], problems


def findings(page: Any) -> list[str]:
    """What axe finds wrong for people who cannot see, hear or use a mouse: the serious ones."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {node['target']} {node['failureSummary']}"
        for v in found
        if v["impact"] in SERIOUS
        for node in v["nodes"]
    ]


def screenshot(page: Any, name: str) -> None:
    """The whole page as a file in the folder $SCREENSHOTS, if there is one."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(exist_ok=True, parents=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)
