"""The page Inside: what is in a package, and its graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .workshop import PLAIN, Workshop

if TYPE_CHECKING:
    from converters.verification.inspect import Inspection

# The graph's width follows the slider, in parts of its own.
ZOOM = """zoom => document.querySelectorAll(".drawing svg").forEach(
    svg => { svg.style.width = svg.viewBox.baseVal.width * zoom / 100 + "px" })"""


def inside(workshop: Workshop, name: str, recipe: str = PLAIN) -> tuple[Inspection, str]:
    """What is in a package, and its graph as SVG."""
    from converters.verification.drawing import draw_program
    from converters.verification.inspect import inspect

    with workshop.lock:
        package = workshop.package(name, recipe)
        return inspect(package), draw_program(package)


def tab(workshop: Workshop) -> None:
    """What is asked, and how what was found is shown."""
    import gradio as gr

    from .parts import model_choice, recipe_choice, said, scrolled

    with gr.Row():
        model, recipe = model_choice(workshop.classifiers), recipe_choice(PLAIN)
        go = gr.Button("Open", variant="primary")
    facts = gr.Markdown()
    findings = gr.Dataframe(
        headers=["severity", "rule", "what helps", "where"],
        label="What to look out for",
        wrap=True,
    )
    with gr.Row():
        with gr.Column():
            operations = gr.Dataframe(headers=["operation", "count"], label="Operations")
        with gr.Column():
            weights = gr.Dataframe(
                headers=["weight", "format", "values", "bytes"], label="Weights", wrap=True
            )
    zoom = gr.Slider(10, 200, value=100, step=10, label="Zoom of the graph, %")
    graph = gr.HTML(elem_classes="graph")

    @said
    def answer(model: str, recipe: str) -> tuple[Any, ...]:
        found, svg = inside(workshop, model, recipe)
        rows = [[w.name, w.format, w.size, w.bytes] for w in found.weights]
        counts = [[*item] for item in found.operations.items()]
        return (
            _facts(found),
            _findings(found),
            counts,
            rows,
            100,
            scrolled(svg, "Graph"),
        )

    outputs = [facts, findings, operations, weights, zoom, graph]
    go.click(answer, [model, recipe], outputs)
    zoom.input(None, zoom, None, js=ZOOM)


def _facts(found: Inspection) -> str:
    lines = [f"{found.bytes / 1e6:.2f} MB, {found.target} and later"]
    lines += [f"input `{feature}`" for feature in found.inputs]
    lines += [f"output `{feature}`" for feature in found.outputs]
    return "\n".join(f"- {line}" for line in lines)


def _findings(found: Inspection) -> list[list[str]]:
    return [[f.severity, f.rule, f.advice, ", ".join(f.examples)] for f in found.findings]
