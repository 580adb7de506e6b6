"""The page Smaller: what each compression saves and costs, and which photos change class."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import OnDeviceError
from ...image.preprocess import resize_and_crop
from ...pages import SMALL, Axis, Curve, percent, plot
from ...tasks.classify import classify
from .workshop import PLAIN, Made, Workshop, scores, thumbnail

if TYPE_CHECKING:
    import mlx.nn as nn
    from PIL import Image

    from converters.compress.pareto import Front
    from converters.program import Program

MAX_BUDGET = 60  # percent of the uncompressed size: 8 bits for each weight take 50
CHOSEN = (PLAIN, "int8", "palette6", "palette4")


@dataclass(frozen=True)
class Cost:
    """What a recipe saves and costs on some images; ``changed`` are those of another class."""

    recipe: str
    bytes: int
    psnr_db: float
    same_class: float
    changed: list[tuple[Image.Image, str]]
    package: Path
    front: Front | None = None  # of a search: the sizes that were to be had


def costs(
    workshop: Workshop,
    name: str,
    recipes: Sequence[str],
    photos: Sequence[str],
    percent: int = 0,
) -> Iterator[Cost]:
    """Each recipe's cost, as it is known, on the photos, or on test images if there are none.

    With ``percent`` the last is the best package of at most that part of the uncompressed
    size, a format for each layer: searched on every second image, and all are measured on the
    others. Raises ImageError, ConfigError.
    """
    measured = workshop.halves(name, photos)[1] if percent else workshop.images(name, photos)
    for recipe in recipes:
        with workshop.lock:
            made = Made(workshop.package(name, recipe))
            cost = _cost(workshop.model(name), made, recipe, measured)
        yield cost
    if percent:
        with workshop.lock:
            made = workshop.within(name, percent, photos)
            cost = _cost(workshop.model(name), made, f"at most {percent} %", measured)
        yield cost


def _cost(model: nn.Module, made: Made, recipe: str, images: Sequence[Any]) -> Cost:
    from converters.verification.verify import verify

    package = made.package
    (found,) = verify(model, package, images).comparisons[:1]
    changed = list(_changed(model, package, images))
    return Cost(
        recipe=recipe,
        bytes=package.size,
        psnr_db=found.psnr_db,
        same_class=1 - len(changed) / len(images),
        changed=changed,
        package=package.path,
        front=made.front,
    )


def _changed(
    model: nn.Module, package: Program, images: Sequence[Any]
) -> Iterator[tuple[Image.Image, str]]:
    """The images whose class the package changes, with both classes."""
    from PIL import Image

    for image in images:
        pixels = resize_and_crop(image, model.info.preprocess)
        found = scores(package, pixels)
        ((ours,),) = classify(model, image, top_k=1)
        theirs = max(found, key=lambda label: found[label])
        if theirs != ours.label:
            said = f"{ours.label} {ours.score:.0%} → {theirs} {found[theirs]:.0%}"
            yield thumbnail(Image.fromarray(pixels)), said


def tab(workshop: Workshop) -> None:
    """What is asked, and how what was found is shown."""
    import gradio as gr

    from .parts import gallery, message, model_choice, need, own, recipes

    model = model_choice(workshop.classifiers)
    chosen = gr.CheckboxGroup(recipes(), value=list(CHOSEN), label="Compression")
    budget = gr.Slider(
        0,
        MAX_BUDGET,
        value=0,
        step=5,
        label="A format for each layer, within this part of the size, % (0: none)",
    )
    photos = gr.Files(
        file_types=["image"], label="Photos to compare on; without any, test patterns"
    )
    with gr.Row():
        go, stop = gr.Button("Measure", variant="primary"), gr.Button("Stop")
    table = gr.Dataframe(
        headers=["compression", "MB", "same class", "PSNR, dB"],
        interactive=False,
        label="What it costs",
    )
    curve = gr.HTML()
    changed = gallery("Photos that change their class", 6)
    packages = gr.Files(label="The packages, zipped", interactive=False)

    def measure(
        model: str, chosen: list[str], budget: int, photos: list[str] | None
    ) -> Iterator[Any]:
        found: list[Cost] = []
        try:
            need(chosen or budget, "a compression")
            for cost in costs(workshop, model, chosen, photos or [], budget):
                found.append(cost)
                yield own(_shown(found))
        except OnDeviceError as error:
            raise message(error) from error

    outputs = [table, curve, changed, packages]
    running = go.click(measure, [model, chosen, budget, photos], outputs)
    stop.click(None, cancels=running)


def _shown(found: Sequence[Cost]) -> tuple[Any, ...]:
    """What the page shows of the costs that are known."""
    fronts = [cost.front.to_svg(SMALL, as_file=False) for cost in found if cost.front]
    curve = f'<div class="plots">{"".join([_curve(found), *fronts])}</div>'
    changed = [(image, f"{c.recipe}: {text}") for c in found for image, text in c.changed]
    packages = [_zipped(cost.package) for cost in found]
    return [_row(cost) for cost in found], curve, changed, packages


def _row(cost: Cost) -> list[Any]:
    shares = percent(cost.same_class), f"{cost.psnr_db:.1f}"
    return [cost.recipe, f"{cost.bytes / 1e6:.2f}", *shares]


def _curve(costs: Sequence[Cost]) -> str:
    """Size to the right, what is left of the model's values upwards; a line through those
    recipes that no smaller one beats."""
    best: list[Cost] = []
    for cost in sorted(costs, key=lambda cost: (cost.bytes, -cost.psnr_db)):
        if not best or cost.psnr_db > best[-1].psnr_db:
            best.append(cost)
    rest = [cost for cost in costs if cost not in best]
    right = max(cost.bytes for cost in costs) / 1e6 * 1.05
    top = max(cost.psnr_db for cost in costs) * 1.1
    marks = [share * right for share in (0, 0.25, 0.75, 1)]
    x = Axis("MB", 0, right, [(mark, f"{mark:.1f}") for mark in marks])
    y = Axis("dB", 0, top, [(share * top, f"{share * top:.0f}") for share in (0, 0.5, 1)])
    return plot([_points(best), _points(rest, line=False)], x, y, size=SMALL)


def _points(costs: Sequence[Cost], *, line: bool = True) -> Curve:
    points = [(cost.bytes / 1e6, cost.psnr_db) for cost in costs]
    titles = [f"{c.recipe}: {c.bytes / 1e6:.2f} MB, {c.psnr_db:.1f} dB" for c in costs]
    return Curve(points, titles, radius=4, names=[cost.recipe for cost in costs], line=line)


def _zipped(package: Path) -> str:
    """The package as one file beside it."""
    path = package.with_name(f"{package.name}.zip")
    if not path.exists():
        shutil.make_archive(str(package), "zip", package.parent, package.name)
    return str(path)
