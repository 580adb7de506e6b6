"""A fault of a page would be noticed."""

from __future__ import annotations

import pytest

from .browser import driver, findings, need_browser, page_at

BAD = '<title>t</title><button></button><p style="color: #ccc; background: #fff">pale</p>'


def test_a_page_that_some_people_cannot_use_is_found(tmp_path):
    need_browser()
    path = tmp_path / "bad.html"
    path.write_text(BAD)
    with driver() as browser, page_at(browser, path.as_uri()) as page:
        found = " ".join(findings(page))
    assert {"button-name", "color-contrast", "html-has-lang"} <= {
        *found.replace(":", "").split()
    }


def test_a_request_to_elsewhere_is_found(tmp_path):
    need_browser()
    path = tmp_path / "bad.html"
    path.write_text('<img src="http://nowhere.invalid/x.png">')
    with (
        pytest.raises(AssertionError, match="nowhere"),
        driver() as browser,
        page_at(browser, path.as_uri()),
    ):
        pass
