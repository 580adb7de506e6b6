"""The page of models is that of the registry."""

from ondevice.registry import list_models

from .. import ROOT
from . import models_page


def test_the_page_is_current_and_complete():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert page == models_page.page()
    assert all(f"| `{name}` |" in page for name in list_models())
    assert "arxiv.org/abs/2401.16456" in page
