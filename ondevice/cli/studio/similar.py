"""The page Search: the photos of an index that are most similar to another, or to a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, ImageError
from ...image.open import open_image
from .workshop import Workshop, thumbnail

if TYPE_CHECKING:
    from PIL import Image

TOP = 12


def similar(
    workshop: Workshop, photo: str | None, text: str = "", top_k: int = TOP
) -> list[tuple[Image.Image, str]]:
    """The most similar photos of the index, each with its cosine and name, the nearest first.

    Raises ImageError, and ConfigError also unless one of ``photo`` and ``text`` is given.
    """
    from ...tasks.embeddings.search import encode_query, encode_text, search

    if (not photo) == (not text):
        raise ConfigError("Give a photo or a text, and not both.")
    with workshop.lock:
        index, name = workshop.index, workshop.index_model
        if text:
            query = encode_text(index, workshop.clip(name), text)
        else:
            query = encode_query(index, workshop.model(name), open_image(photo or ""))
        matches = search(index, query, top_k=top_k)
    return [(_shown(m.path), f"{m.score:.3f} {_short(m.path)}") for m in matches]


def _shown(path: str) -> Image.Image:
    """A photo, or grey where it cannot be read any more."""
    from PIL import Image

    try:
        return thumbnail(open_image(path))
    except ImageError:
        return Image.new("RGB", (96, 96), "grey")


def _short(path: str) -> str:
    """A file and its folder: a caption has no room for more."""
    return "/".join(Path(path).parts[-2:])


def tab(workshop: Workshop) -> None:
    """What is asked, and how what was found is shown."""
    import gradio as gr

    from .parts import absent, gallery, photo_input, said

    if workshop.index_path is None:
        absent("There is no index of photos.", "--index photos.safetensors")
        return
    name = workshop.index_model
    gr.Markdown(f"{workshop.index.shape[0]:,} photos, by {name}")
    with gr.Row():
        photo = photo_input("Similar to")
        text = gr.Textbox(label="or what is on it", visible=name in workshop.clips)
    go = gr.Button("Search", variant="primary")
    nearest = gallery("Most similar", 4)

    @said
    def answer(photo: str | None, text: str | None) -> Any:  # None of a hidden box
        return similar(workshop, photo, (text or "").strip())

    gr.on([go.click, text.submit], answer, [photo, text], nearest)
