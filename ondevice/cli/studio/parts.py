"""What the pages have in common: their look, choices, and how a fault is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any
from uuid import uuid4

import gradio as gr
from PIL import Image

from ...errors import ConfigError, OnDeviceError
from .workshop import PLAIN

STYLE = """
.gradio-container {
  --dim: var(--body-text-color-subdued); --rule: var(--border-color-primary);
  --panel: var(--background-fill-secondary); --text: var(--body-text-color);
  width: 100%; max-width: min(1100px, 100vw) !important; margin: auto;
}
.gradio-container .or, .min_value, .max_value { color: var(--dim) !important }
.dark .tab-container .selected { color: #4493f8 !important }
.tab-container .selected { color: #0969da }
.gradio-container .column { min-width: min(320px, 100%) !important; max-width: 100% }
.gradio-container .block { max-width: 100% }
.plots { display: flex; flex-wrap: wrap; gap: 16px }
.plots svg { flex: 1 1 300px; max-width: 540px; height: auto }
.gradio-container th span { word-break: normal !important; overflow-wrap: normal !important }
.drawing { max-height: 70vh; overflow: auto }
.thumbnails .grid-container { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)) }
.thumbnails .caption-label { white-space: normal; max-width: 100% !important }
footer { display: none !important }
@media (max-width: 600px) {
  .tab-container button { padding: 0 6px !important; font-size: 13px }
}
"""

# Gradio gives what is still empty a label, which a plain div may not have, and the button
# around an image none.
HEAD = """<script>
new MutationObserver(() => {
  document.querySelectorAll(".empty[aria-label]:not([role])").forEach(e => { e.role = "group" })
  document.querySelectorAll(".image-container > button:not([aria-label])")
    .forEach(e => { e.ariaLabel = "Image" })
}).observe(document, { subtree: true, childList: true })
</script>"""
# Colours that can be read by everybody, in light and dark.
COLOURS = {
    "color_accent": "#0969da",
    "body_text_color_subdued": "#59636e",
    "body_text_color_subdued_dark": "#9198a1",
    "block_label_text_color": "#59636e",
    "block_label_text_color_dark": "#9198a1",
    "button_primary_background_fill": "#0969da",
    "button_primary_background_fill_dark": "#0969da",
    "button_primary_background_fill_hover": "#0757b5",
    "button_primary_background_fill_hover_dark": "#0757b5",
    "button_primary_text_color": "#ffffff",
}


def theme() -> gr.themes.Base:
    """The fonts of the system, and those colours."""
    font, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.themes.Default(primary_hue="blue", font=font, font_mono=mono).set(**COLOURS)


def said(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is wrong becomes a message on the page; images are made ``own``."""

    @wraps(function)
    def wrapped(*args: Any) -> Any:
        try:
            return own(function(*args))
        except OnDeviceError as error:
            raise message(error) from error

    return wrapped


def own(value: Any) -> Any:
    """``value``, in which each image has a mark that no other has.

    Gradio names a file by its content, and writes it anew when a second user gets the same
    image, while the first may be loading it.
    """
    if isinstance(value, Image.Image):
        marked = value.copy()
        marked.info = {"mark": uuid4().hex}
        return marked
    return type(value)(map(own, value)) if isinstance(value, list | tuple) else value


def message(error: OnDeviceError) -> gr.Error:
    """An error as a message that stays until it is closed."""
    return gr.Error(str(error), duration=None, print_exception=False)


def need(value: Any, what: str) -> Any:
    """``value``, unless nothing was given. Raises ConfigError."""
    if not value:
        raise ConfigError(f"Give {what} first.")
    return value


def model_choice(names: Sequence[str]) -> gr.Dropdown:
    """A choice of one of the models."""
    return gr.Dropdown(list(names), value=names[0], label="Model")


def recipe_choice(value: str) -> gr.Dropdown:
    """A choice of how a package is compressed."""
    return gr.Dropdown(recipes(), value=value, label="Compression of the package")


def recipes() -> list[str]:
    """The compressions that are offered."""
    from converters.compress.recipe import PRESETS

    return [PLAIN, *PRESETS]


def photo_input(label: str = "Photo") -> gr.Image:
    """A photo that is uploaded or taken, as the path of a file."""
    return gr.Image(type="filepath", format="png", sources=["upload", "webcam"], label=label)


def drawing(label: str) -> gr.Image:
    """An image that is only shown."""
    return gr.Image(label=label, format="png", interactive=False, buttons=["fullscreen"])


def gallery(label: str, columns: int) -> gr.Gallery:
    """Small images with a line each."""
    return gr.Gallery(
        label=label, columns=columns, format="png", height=260, elem_classes="thumbnails"
    )


def absent(what: str, option: str) -> None:
    """A page of which nothing can be shown, and what to start with."""
    gr.Markdown(f"{what} Start with `ondevice studio {option}`.")


def scrolled(svg: str, label: str) -> str:
    """A drawing that is moved by itself where it is larger than the page, by keys as well."""
    return f'<div class="drawing" tabindex="0" role="region" aria-label="{label}">{svg}</div>'
