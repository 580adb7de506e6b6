"""The page Look: one photo through a model and its packages, and what they see in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...image.open import open_image
from ...image.preprocess import resize_and_crop, steps
from ...pages import percent
from ...tasks.classify import classify
from ...tasks.heat_map import heat_map, overlay
from .attention import attention_map
from .workshop import THUMBNAIL, Workshop, scores, thumbnail

if TYPE_CHECKING:
    import mlx.nn as nn
    import numpy as np
    from PIL import Image

    Array = np.ndarray[Any, Any]

LARGE = 448  # pixels of what is looked at


@dataclass(frozen=True)
class Look:
    """One photo through a model and its packages: probabilities by label, and images.

    ``heat`` and ``attention`` are None of a model that has no such thing.
    """

    model: dict[str, float]
    package: dict[str, float]
    compressed: dict[str, float]
    heat: Image.Image | None
    attention: Image.Image | None
    steps: list[tuple[Image.Image, str]]

    def apart(self, found: dict[str, float]) -> float:
        """The largest difference of a probability to the model's."""
        return max(abs(found[label] - score) for label, score in self.model.items())


def look(workshop: Workshop, name: str, recipe: str, photo: str) -> Look:
    """A photo through a model, its package, and that compressed by ``recipe``.

    Raises ImageError, ConfigError.
    """
    with workshop.lock:
        model, package = workshop.model(name), workshop.package(name)
        image = open_image(photo)
        (best,) = classify(model, image, top_k=len(model.info.class_names))
        pixels = resize_and_crop(image, model.info.preprocess)
        heat = _heat(model, image)
        read = attention_map(package, pixels, None if heat is None else heat.size)
        return Look(
            model={p.label: p.score for p in best},
            package=scores(package, pixels),
            compressed=scores(workshop.package(name, recipe), pixels),
            heat=_over(pixels, heat),
            attention=_over(pixels, read),
            steps=[
                (thumbnail(made, 2 * THUMBNAIL), f"{step} {made.width}x{made.height}")
                for step, made in steps(image, model.info.preprocess)
            ],
        )


def _heat(model: nn.Module, image: Image.Image) -> Array | None:
    try:
        return heat_map(model, image)
    except ConfigError:  # no classifier behind a map
        return None


def _over(pixels: Array, heat: Array | None) -> Image.Image | None:
    return None if heat is None else overlay(_large(pixels), heat)


def _large(pixels: Array) -> Array:
    """Pixel values as squares that can be seen."""
    times = max(LARGE // len(pixels), 1)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def tab(workshop: Workshop) -> None:
    """What is asked, and how what was found is shown."""
    import gradio as gr

    from .parts import drawing, gallery, model_choice, need, photo_input, recipe_choice, said

    with gr.Row():
        with gr.Column():
            photo = photo_input()
            model, recipe = model_choice(workshop.classifiers), recipe_choice("palette4")
            go = gr.Button("Look", variant="primary")
        with gr.Column(), gr.Row():
            shown = [
                gr.Label(num_top_classes=5, label=label, min_width=150)
                for label in ("MLX model", "Package", "Compressed")
            ]
    line = gr.Markdown()
    with gr.Row():
        heat = drawing("What speaks for the class (Grad-CAM)")
        attention = drawing("What the last attention reads")
    passed = gallery("What the photo goes through", 5)

    @said
    def answer(photo: str | None, model: str, recipe: str) -> tuple[Any, ...]:
        found = look(workshop, model, recipe, need(photo, "a photo"))
        labels = found.model, found.package, found.compressed
        return *labels, _line(found), found.heat, found.attention, found.steps

    outputs = [*shown, line, heat, attention, passed]
    gr.on([go.click, photo.upload], answer, [photo, model, recipe], outputs)


def _line(found: Look) -> str:
    absent = [
        text
        for text, image in (
            ("no map before its classifier", found.heat),
            ("no attention over all positions", found.attention),
        )
        if image is None
    ]
    said = f" The model has {' and '.join(absent)}." if absent else ""
    return (
        f"Largest difference of a probability: {percent(found.apart(found.package))}, "
        f"compressed {percent(found.apart(found.compressed))}.{said}"
    )
