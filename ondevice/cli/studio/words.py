"""The page Words: which of the labels that one types fits a photo."""

from __future__ import annotations

from ...image.open import open_image
from ...tasks.clip.model import TEMPLATES, check_labels, check_templates
from .workshop import Workshop


def fitting(
    workshop: Workshop, name: str, photo: str, labels: str, template: str = TEMPLATES[0]
) -> dict[str, float]:
    """The share of each label of a text, which has commas or ends of lines between them.

    Raises ImageError, ConfigError.
    """
    given = [label.strip() for label in labels.replace("\n", ",").split(",")]
    names = check_labels([label for label in given if label])
    texts = check_templates([template])
    with workshop.lock:
        clip = workshop.clip(name)
        (found,) = clip.zero_shot(open_image(photo), names, texts, top_k=len(names))
    return {p.label: p.score for p in found}


def tab(workshop: Workshop) -> None:
    """What is asked, and how what was found is shown."""
    import gradio as gr

    from .parts import absent, model_choice, need, photo_input, said

    if not workshop.clips:
        absent("No model here has words.", "--model mobileclip_s0")
        return
    with gr.Row():
        with gr.Column():
            photo, model = photo_input(), model_choice(workshop.clips)
            labels = gr.Textbox(label="Labels, with commas between them", lines=3)
            template = gr.Textbox(TEMPLATES[0], label="Text for a label, which replaces {}")
            go = gr.Button("Compare", variant="primary")
        with gr.Column():
            shown = gr.Label(num_top_classes=10, label="What fits")

    @said
    def answer(photo: str | None, model: str, labels: str, template: str) -> dict[str, float]:
        labels = need(labels.strip(" ,\n"), "labels")
        return fitting(workshop, model, need(photo, "a photo"), labels, template)

    gr.on([go.click, labels.submit], answer, [photo, model, labels, template], shown)
