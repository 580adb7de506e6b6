"""``ondevice demo``: the whole chain on one image, offline."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ImageError
from ..tasks.clock import Clock
from ._images import SKIPS, Skipped
from ._output import json_option, print_json, print_table

if TYPE_CHECKING:
    from converters.verification.verify import Report

# Modules with the same names in them.
TASKS = {"classify": "_demo_classes", "detect": "_demo_boxes", "segment": "_demo_masks"}


@click.command("demo", epilog=SKIPS)
@click.argument("photos", metavar="[PHOTO...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--task",
    type=click.Choice(list(TASKS)),
    default="classify",
    show_default=True,
    help="A photo's class; or, of drawn shapes, where each is, or what each pixel is of.",
)
@click.option(
    "--model", help="Model name, name.tag or folder.  [default: one that ships for the task]"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("ondevice-demo"),
    show_default=True,
    help="Folder to write the package to, and a drawing of boxes or masks.",
)
@json_option
@click.pass_context
def demo(
    ctx: click.Context,
    photos: tuple[Path, ...],
    task: str,
    model: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Show a photo to a model, export it, read the package back, run it, compare.

    Exit status 1 if the package does not compute what the model computes.
    """
    clock, parts = Clock(), import_module(f"{__package__}.{TASKS[task]}")
    name = model or parts.default_model()
    with clock("load the photo"):
        images = _load(photos, skipped := Skipped()) or parts.example()
    with clock("load the model"):
        from ..tasks.load import load

        network = load(name)
    with clock(f"{task} with MLX"):
        ours = parts.find(network, images)
    with clock("import coremltools"):
        from converters.backend import load_package
        from converters.export import export
        from converters.verification.verify import verify
    with clock("export the package"):
        path = export(network, out / f"{network.info.name}.mlpackage", force=True)
    with clock("read it back"):
        package = load_package(path)
        package.results()
    with clock("run it and compare"):
        report = verify(network, package, images.values())
        theirs = parts.find_in_package(network, package, images)
    drawings = parts.draw(network, images, theirs, out)
    rows = list(parts.sides(network, images, ours, theirs))
    if as_json:
        names = ("image", "MLX", f"MLX {parts.VALUE}", "package", f"package {parts.VALUE}")
        predictions = [dict(zip(names, row, strict=True)) for row in rows]
        _print_json(predictions, drawings, report, clock, skipped)
    else:
        if not photos:
            click.echo(parts.ORIGIN, err=True)
        value = parts.VALUE
        print_table(("image", "MLX", f">{value}", "package", f">{value}"), rows)
        _print([*parts.facts(report), *_drawn(drawings)], report, clock, path)
    status = skipped.status(len(photos))
    ctx.exit(status if report.passed else 1)


def _load(photos: tuple[Path, ...], skipped: Skipped) -> dict[str, Any]:
    from ..image.open import open_image

    found = {}
    for position, photo in enumerate(photos):
        try:
            found[str(photo)] = open_image(photo)
        except ImageError as error:
            skipped(position, error)
    skipped.check(len(photos))
    return found


def _print_json(
    predictions: list[dict[str, str]],
    drawings: list[Path],
    report: Report,
    clock: Clock,
    skipped: Skipped,
) -> None:
    facts: dict[str, Any] = {
        "predictions": predictions,
        "skipped": skipped.problems,
        "drawings": [str(path) for path in drawings],
        "seconds": {step: round(value, 3) for step, value in clock.seconds.items()},
    }
    print_json(facts | report.to_dict())


def _drawn(drawings: list[Path]) -> list[tuple[str, str]]:
    return [("drawing", str(path)) for path in drawings]


def _print(facts: list[tuple[str, str]], report: Report, clock: Clock, path: Path) -> None:
    click.echo()
    print_table(
        ("package", str(path)),
        [
            ("size", f"{report.package_bytes / 1e6:.2f} MB"),
            *facts,
            *((step, f"{seconds:.2f} s") for step, seconds in clock.seconds.items()),
            ("verdict", "passed" if report.passed else "; ".join(report.failures)),
        ],
    )
