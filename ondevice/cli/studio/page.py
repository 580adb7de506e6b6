"""The page: what is asked, and how what the workshop finds is shown."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ...errors import OnDeviceError
from ...pages import Axis, Curve, percent, plot
from .workshop import PLAIN, Cost, Workshop

if TYPE_CHECKING:
    from converters.verification.inspect import Inspection

MAX_UPLOAD = "50mb"
DELETE = (600, 3600)  # seconds between looks at what can be deleted, and how old that is
TITLE = "ondevice studio"
STYLE = """
.gradio-container { max-width: min(1100px, 100vw) !important; margin: auto }
.curve svg { width: 100%; height: auto }
.curve text { fill: var(--body-text-color-subdued); font: 12px sans-serif }
.curve .grid { stroke: var(--border-color-primary) }
.curve polyline { fill: none; stroke: var(--color-accent); stroke-width: 1.5 }
.curve .dot { fill: var(--color-accent) }
.pictures .grid-container { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)) }
.gradio-container .column { min-width: min(320px, 100%) !important; max-width: 100% }
.gradio-container .block { max-width: 100% }
footer { display: none !important }
"""


def build(workshop: Workshop) -> gr.Blocks:
    """The page with its tabs."""
    with gr.Blocks(title=TITLE, delete_cache=DELETE, analytics_enabled=False) as page:
        gr.Markdown(
            f"# {TITLE}\nPhotos stay on this machine, and are deleted within two hours."
        )
        for name, tab in {"Look": _look, "Smaller": _smaller, "Inside": _inside}.items():
            with gr.Tab(name):
                tab(workshop)
    return page


def serve(
    page: gr.Blocks, host: str, port: int, auth: tuple[str, str] | None, *, browser: bool
) -> None:
    """Serve the page until the process is interrupted."""
    font = ["system-ui", "sans-serif"]
    page.queue(default_concurrency_limit=2).launch(
        server_name=host,
        server_port=port or None,
        auth=auth,
        inbrowser=browser,
        max_file_size=MAX_UPLOAD,
        theme=gr.themes.Default(font=font, font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
        share=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
    )


def _said(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is wrong with what was given becomes a message on the page."""

    @wraps(function)
    def wrapped(*args: Any) -> Any:
        try:
            return function(*args)
        except OnDeviceError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    return wrapped


def _choices(workshop: Workshop, recipe: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """A model, and how its package is compressed."""
    model = gr.Dropdown(workshop.names, value=workshop.names[0], label="Model")
    return model, gr.Dropdown(_recipes(), value=recipe, label="Compression of the package")


def _recipes() -> list[str]:
    from converters.compress.recipe import PRESETS

    return [PLAIN, *PRESETS]


def _look(workshop: Workshop) -> None:
    with gr.Row():
        with gr.Column():
            photo = gr.Image(
                type="filepath", format="png", sources=["upload", "webcam"], label="Photo"
            )
            model, recipe = _choices(workshop, "palette4")
            go = gr.Button("Look", variant="primary")
        with gr.Column():
            with gr.Row():
                scores = [
                    gr.Label(num_top_classes=5, label=label, min_width=150)
                    for label in ("MLX model", "Package", "Compressed")
                ]
            said = gr.Markdown()
            heat = gr.Image(label="Where it looks", interactive=False, buttons=["fullscreen"])
    steps = gr.Gallery(
        label="What the photo goes through", columns=5, height=260, elem_classes="pictures"
    )

    def look(photo: str | None, model: str, recipe: str) -> tuple[Any, ...]:
        if photo is None:
            raise gr.Error("Give a photo first.", duration=None, print_exception=False)
        found = workshop.look(model, recipe, photo)
        line = (
            f"Largest difference of a probability: {percent(found.apart(found.package))}, "
            f"compressed {percent(found.apart(found.compressed))}."
        )
        shown = found.model, found.package, found.compressed
        return *shown, line, found.heat, found.steps

    outputs = [*scores, said, heat, steps]
    gr.on([go.click, photo.upload], _said(look), [photo, model, recipe], outputs)


def _smaller(workshop: Workshop) -> None:
    model = gr.Dropdown(workshop.names, value=workshop.names[0], label="Model")
    recipes = gr.CheckboxGroup(
        _recipes(), value=[PLAIN, "int8", "palette6", "palette4"], label="Compression"
    )
    photos = gr.Files(
        file_types=["image"], label="Photos to compare on; without any, test patterns"
    )
    with gr.Row():
        go = gr.Button("Measure", variant="primary")
        stop = gr.Button("Stop")
    table = gr.Dataframe(
        headers=["compression", "MB", "same class", "PSNR, dB"],
        interactive=False,
        label="What it costs",
    )
    curve = gr.HTML(elem_classes="curve")
    changed = gr.Gallery(
        label="Photos that change their class", columns=6, height=260, elem_classes="pictures"
    )
    packages = gr.Files(label="The packages, zipped", interactive=False)

    def measure(model: str, recipes: list[str], photos: list[str] | None) -> Iterator[Any]:
        costs: list[Cost] = []
        try:
            for cost in workshop.costs(model, recipes, photos or []):
                costs.append(cost)
                yield (
                    [_row(c) for c in costs],
                    _curve(costs),
                    [
                        (picture, f"{c.recipe}: {text}")
                        for c in costs
                        for picture, text in c.changed
                    ],
                    [_zipped(c.package) for c in costs],
                )
        except OnDeviceError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    outputs = [table, curve, changed, packages]
    running = go.click(measure, [model, recipes, photos], outputs)
    stop.click(None, cancels=running)


def _row(cost: Cost) -> list[Any]:
    return [
        cost.recipe,
        f"{cost.bytes / 1e6:.2f}",
        percent(cost.same_class),
        f"{cost.psnr_db:.1f}",
    ]


def _curve(costs: list[Cost]) -> str:
    """Size to the right, what is left of the model's values upwards."""
    ordered = sorted(costs, key=lambda cost: cost.bytes)
    points = [(cost.bytes / 1e6, cost.psnr_db) for cost in ordered]
    titles = [f"{c.recipe}: {c.bytes / 1e6:.2f} MB, {c.psnr_db:.1f} dB" for c in ordered]
    right, top = max(x for x, _ in points) * 1.05, max(y for _, y in points) * 1.1
    x = Axis(
        "MB",
        0,
        right,
        [(share * right, f"{share * right:.1f}") for share in (0, 0.25, 0.75, 1)],
    )
    y = Axis("dB", 0, top, [(share * top, f"{share * top:.0f}") for share in (0, 0.5, 1)])
    return plot([Curve(points, titles, radius=4)], x, y)


def _zipped(package: Path) -> str:
    """The package as one file beside it."""
    path = package.with_name(f"{package.name}.zip")
    if not path.exists():
        shutil.make_archive(str(package), "zip", package.parent, package.name)
    return str(path)


def _inside(workshop: Workshop) -> None:
    with gr.Row():
        model, recipe = _choices(workshop, PLAIN)
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

    def inside(model: str, recipe: str) -> tuple[Any, ...]:
        found = workshop.inspection(model, recipe)
        return (
            _facts(found),
            _findings(found),
            [[*i] for i in found.operations.items()],
            [[w.name, w.format, w.size, w.bytes] for w in found.weights],
        )

    go.click(_said(inside), [model, recipe], [facts, findings, operations, weights])


def _facts(found: Inspection) -> str:
    lines = [f"{found.bytes / 1e6:.2f} MB, {found.target} and later"]
    lines += [f"input `{feature}`" for feature in found.inputs]
    lines += [f"output `{feature}`" for feature in found.outputs]
    return "\n".join(f"- {line}" for line in lines)


def _findings(found: Inspection) -> list[list[str]]:
    return [[f.severity, f.rule, f.advice, ", ".join(f.examples)] for f in found.findings]
