"""``ondevice demo``: the whole chain on one image, offline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, ImageError
from ..tasks.clock import Clock
from ..weights.output import check_free
from ._images import SKIPS, Skipped
from ._output import json_option, print_json, print_table

if TYPE_CHECKING:
    from converters.verification.verify import Report

FOLDER = "ondevice-demo"  # in the working folder
# What the model and the package say, each with a share of 1; None where one says less.
Said = tuple[str, float] | None
Sides = tuple[str, Said, Said]  # with an image's name
NONE = (None, None)
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
    help="Folder to write the package to, and a drawing of boxes or masks.  "
    f"[default: {FOLDER}, where an earlier demo's are replaced]",
)
@click.option("--force", is_flag=True, help="Replace a package of that name in --out.")
@json_option
@click.pass_context
def demo(
    ctx: click.Context,
    photos: tuple[Path, ...],
    task: str,
    model: str | None,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show a photo to a model, export it, read the package back, run it, compare.

    Exit status 1 if the package does not compute what the model computes.
    """
    if force and out is None:
        raise ConfigError(f"--force goes with --out: what is in {FOLDER} is replaced anyway")
    folder = Path(FOLDER) if out is None else out
    clock, parts = Clock(), import_module(f"{__package__}.{TASKS[task]}")
    name = model or parts.default_model()
    with clock("load the photo"):
        images = _load(photos, skipped := Skipped()) or parts.example()
    with clock("load the model"):
        from ..tasks.load import load

        network = load(name)
    path = folder / f"{network.info.name}.mlpackage"
    check_free(path, force=force or out is None, marker="Manifest.json")
    with clock(f"{task} with MLX"):
        ours = parts.find(network, images)
    with clock("import coremltools"):
        from converters.backend import load_package
        from converters.export import export
        from converters.verification.verify import verify
    with clock("export the package"):
        export(network, path, force=force or out is None)
    with clock("read it back"):
        package = load_package(path)
        package.results()
    with clock("run it and compare"):
        report = verify(network, package, images.values())
        theirs = parts.find_in_package(network, package, images)
    drawings = parts.draw(network, images, theirs, folder)
    sides, value = list(parts.sides(network, images, ours, theirs)), parts.VALUE
    if as_json:
        names = ("image", "MLX", f"MLX {value}", "package", f"package {value}")
        predictions = [
            dict(zip(names, (name, *(mine or NONE), *(package or NONE)), strict=True))
            for name, mine, package in sides
        ]
        _print_json(predictions, drawings, report, clock, skipped)
    else:
        if not photos:
            click.echo(parts.ORIGIN, err=True)
        print_table(("image", "MLX", f">{value}", "package", f">{value}"), _rows(sides))
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


def _rows(sides: Iterable[Sides]) -> Iterator[tuple[str, ...]]:
    """A table of both sides, with an image's name in its first row."""
    shown = ""
    for name, *both in sides:
        cells = [(side[0], f"{side[1]:.2%}") if side else ("", "") for side in both]
        yield "" if name == shown else name, *cells[0], *cells[1]
        shown = name


def _print_json(
    predictions: list[dict[str, Any]],
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
