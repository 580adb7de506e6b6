"""``ondevice demo``: the whole chain on one photo, offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, ImageError
from ..tasks.clock import Clock
from ._images import SKIPS, Skipped
from ._output import json_option, print_json, print_table
from .classify import DEFAULT_MODEL

if TYPE_CHECKING:
    from converters.verification.verify import Report

ORIGIN = "Chelsea the cat: photo by Stefan van der Walt, CC0, from scikit-image"


@click.command("demo", epilog=SKIPS)
@click.argument("photos", metavar="[PHOTO...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model", default=DEFAULT_MODEL, show_default=True, help="Model name, name.tag or folder."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("ondevice-demo"),
    show_default=True,
    help="Folder to write the package to.",
)
@json_option
@click.pass_context
def demo(
    ctx: click.Context, photos: tuple[Path, ...], model: str, out: Path, as_json: bool
) -> None:
    """Classify a photo, export the model, read the package back, run it, compare.

    Exit status 1 if the package does not compute what the model computes.
    """
    clock = Clock()
    with clock("load the photo"):
        images = _load(photos, skipped := Skipped())
    with clock("load the model"):
        from ..nn.fuse import fuse
        from ..tasks.classify import classify
        from ..tasks.load import load

        network = load(model)
    with clock("classify with MLX"):
        ours = classify(fuse(network), list(images.values()))
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
        pixels = map(package.resize_and_crop, images.values())
        theirs = [package.predict({"image": image}) for image in pixels]
    rows = list(_sides(images, ours, theirs))
    if as_json:
        predictions = [dict(zip(_HEADER, row, strict=True)) for row in rows]
        facts = {"predictions": predictions, "skipped": skipped.problems}
        seconds = {step: round(value, 3) for step, value in clock.seconds.items()}
        print_json(facts | {"seconds": seconds} | report.to_dict())
    else:
        _print(rows, report, clock, path, photos)
    status = skipped.status(len(photos))
    ctx.exit(status if report.passed else 1)


_HEADER = ("image", "MLX", ">score", "package", ">score ")


def _load(photos: tuple[Path, ...], skipped: Skipped) -> dict[str, Any]:
    from ..image.open import open_image

    found = {}
    for position, photo in enumerate(photos):
        try:
            found[str(photo)] = open_image(photo)
        except ImageError as error:
            skipped(position, error)
    skipped.check(len(photos))
    if photos:
        return found
    try:
        from skimage import data
    except ImportError:
        raise ConfigError(
            "the demo's photo comes with scikit-image: pip install 'ondevice[demo]', "
            "or give a photo of your own: ondevice demo PHOTO"
        ) from None
    from PIL import Image

    return {"chelsea": Image.fromarray(data.chelsea())}


def _sides(images: dict[str, Any], ours: Any, theirs: Any) -> Iterator[tuple[str, ...]]:
    """The best five of both, side by side."""
    for name, mine, package in zip(images, ours, theirs, strict=True):
        scores = package["classLabel_probs"]
        best = sorted(scores, key=lambda label: -scores[label])
        for prediction, label in zip(mine, best, strict=False):
            yield (
                name,
                prediction.label,
                f"{prediction.score:.2%}",
                label,
                f"{scores[label]:.2%}",
            )
            name = ""


def _print(
    rows: list[tuple[str, ...]], report: Report, clock: Clock, path: Path, photos: Any
) -> None:
    if not photos:
        click.echo(ORIGIN, err=True)
    print_table(_HEADER, rows)
    (logits,) = report.comparisons
    click.echo()
    print_table(
        ("package", str(path)),
        [
            ("size", f"{report.package_bytes / 1e6:.2f} MB"),
            ("PSNR", f"{logits.psnr_db:.1f} dB (gate {report.gates['psnr_db']:g})"),
            ("max error", f"{logits.max_error:.2e}"),
            ("top-1 agreement", f"{logits.top1_agreement:.0%}"),
            *((step, f"{seconds:.2f} s") for step, seconds in clock.seconds.items()),
            ("verdict", "passed" if report.passed else "; ".join(report.failures)),
        ],
    )
