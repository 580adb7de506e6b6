"""The studio as one page of Gradio, with a tab for each file beside this one."""

from __future__ import annotations

import gc

import gradio as gr

from ...pages import plot_style
from . import find, inside, look, similar, smaller, words
from .parts import HEAD, STYLE, theme
from .workshop import Workshop

MAX_UPLOAD = "50mb"
DELETE = (600, 3600)  # seconds between looks at what can be deleted, and how old that is
TITLE = "ondevice studio"
TABS = {
    "Look": look.tab,
    "Find": find.tab,
    "Words": words.tab,
    "Search": similar.tab,
    "Smaller": smaller.tab,
    "Inside": inside.tab,
}


def build(workshop: Workshop) -> gr.Blocks:
    """The page with its tabs."""
    with gr.Blocks(title=TITLE, delete_cache=DELETE, analytics_enabled=False) as page:
        gr.Markdown(
            f"# {TITLE}\nPhotos stay on this machine, and are deleted within two hours."
        )
        for name, tab in TABS.items():
            with gr.Tab(name):
                tab(workshop)
    return page


def serve(
    page: gr.Blocks, host: str, port: int, auth: tuple[str, str] | None, *, browser: bool
) -> None:
    """Serve the page until the process is interrupted."""
    # Each answer leaves cycles that hold its images. Python looks for those the less often the
    # more objects there are: what is there by now stays anyway, and need not count.
    gc.collect()
    gc.freeze()
    gc.collect()
    page.queue(default_concurrency_limit=2).launch(
        server_name=host,
        server_port=port or None,
        auth=auth,
        inbrowser=browser,
        max_file_size=MAX_UPLOAD,
        theme=theme(),
        head=HEAD,
        css=STYLE + plot_style(),
        share=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
    )
