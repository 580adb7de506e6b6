"""The page Find: boxes, depth and masks in a photo's own pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...image.open import open_image
from ...nn.fuse import fuse
from ...signature import THRESHOLD, signature_of
from ...tasks.dense import Result, predict
from ...tasks.draw import draw_boxes, draw_depth, draw_mask
from .workshop import DENSE, Workshop

if TYPE_CHECKING:
    from PIL import Image

    from ...config import ModelInfo

HEADER = ("what", "how much", "where")


@dataclass(frozen=True)
class Found:
    """A drawing of a photo's size, and what is in it, a row each."""

    drawing: Image.Image
    rows: list[list[str]]


def find(workshop: Workshop, name: str, photo: str, threshold: float = THRESHOLD) -> Found:
    """The first of boxes, depth and masks that a model gives, of one photo.

    Raises ImageError, ConfigError.
    """
    with workshop.lock:
        model = workshop.model(name)
        signature = signature_of(model)
        kinds = {output.kind for output in signature.outputs} if signature else set()
        kind: Any = next((k for k in DENSE if k in kinds), DENSE[0])
        image = open_image(photo)
        (result,) = predict(fuse(model), [image], kind, threshold=threshold)
    return _SHOWN[kind](result, model.info)


def _boxes(result: Result, info: ModelInfo) -> Found:
    rows = [
        [d.label, f"{d.score:.1%}", " ".join(f"{value:.0f}" for value in d.box)]
        for d in result.found
    ]
    return Found(draw_boxes(result.photo, result.found), rows)


def _depth(result: Result, info: ModelInfo) -> Found:
    low, high = float(result.found.min()), float(result.found.max())
    rows = [["least", f"{low:.3f}", "dark"], ["most", f"{high:.3f}", "light"]]
    return Found(draw_depth(result.found), rows)


def _mask(result: Result, info: ModelInfo) -> Found:
    import numpy as np

    classes, counts = np.unique(result.found, return_counts=True)
    ranked = sorted(zip(counts.tolist(), classes.tolist(), strict=True), reverse=True)
    rows = [
        [info.labels[c] if info.labels else f"class {c}", f"{n / result.found.size:.1%}", ""]
        for n, c in ranked
    ]
    return Found(draw_mask(result.photo, result.found, info.config.num_classes), rows)


_SHOWN: dict[str, Callable[[Result, ModelInfo], Found]] = {
    "boxes": _boxes,
    "depth": _depth,
    "mask": _mask,
}


def tab(workshop: Workshop) -> None:
    """What is asked, and how what was found is shown."""
    import gradio as gr

    from .parts import drawing, model_choice, need, photo_input, said

    with gr.Row():
        with gr.Column():
            photo, model = photo_input(), model_choice(workshop.dense)
            threshold = gr.Slider(
                0.05, 0.95, value=THRESHOLD, step=0.05, label="Least score of a box"
            )
            go = gr.Button("Find", variant="primary")
        with gr.Column():
            shown = drawing("Found")
            table = gr.Dataframe(headers=list(HEADER), label="What was found", wrap=True)

    @said
    def answer(photo: str | None, model: str, threshold: float) -> tuple[Any, Any]:
        found = find(workshop, model, need(photo, "a photo"), threshold)
        return found.drawing, found.rows

    gr.on([go.click, photo.upload], answer, [photo, model, threshold], [shown, table])
