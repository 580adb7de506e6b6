"""``ondevice verify``: prove that a package computes what the model computes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError
from ._output import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from converters.verify import Report

BACKENDS = ("reference", "coreml", "auto")
IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .webp .bmp .gif .tif .tiff .heic".split())


@click.command("verify")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--model", help="Name, name.tag or saved folder; default: what the package says.")
@click.option("--images", type=click.Path(path_type=Path), help="A folder of pictures.")
@click.option("--limit", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--backend", type=click.Choice(BACKENDS), default="reference", show_default=True)
@json_option
@click.pass_context
def verify_command(
    ctx: click.Context,
    package: Path,
    model: str | None,
    images: Path | None,
    limit: int,
    backend: Any,
    as_json: bool,
) -> None:
    """Compare PACKAGE with the model it came from, on the same images.

    Without --images on four test patterns. Exit status 1 if a gate is missed.
    """
    from converters.coreml.loaded import load_package
    from converters.verify import verify

    from ..weights import create_model

    opened = load_package(package)
    name = model or opened.metadata.get("ondevice.model")
    if not name:
        raise ConfigError(f"{package} does not say what model it is; give it with --model")
    network = create_model(name, pretrained=True)
    size = opened.preprocess.size if opened.preprocess else network.info.preprocess.size
    chosen = pictures(images)[:limit] if images else patterns(size)
    shown = progress(chosen, "verifying", len(chosen))
    report = verify(network, opened, shown, backend=backend)
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report)
    ctx.exit(0 if report.passed else 1)


def pictures(folder: Path) -> list[Path]:
    """The picture files below a folder, sorted. Raises ConfigError if there are none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder of pictures")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise ConfigError(f"{folder} has no pictures ({' '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def patterns(size: int) -> list[Any]:
    """Four test pictures with edges, gradients and noise, as uint8 levels."""
    import numpy as np

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    found = []
    for cell in (2, 4, 8, 16):
        noise = rng.integers(0, 256, (size // cell + 1, size // cell + 1, 3))
        blocks = np.kron(noise, np.ones((cell, cell, 1)))[:size, :size]
        slope = np.stack([x, y, 1 - x], axis=-1) * 255
        found.append((0.6 * blocks + 0.4 * slope).astype(np.uint8))
    return found


def print_report(report: Report) -> None:
    """The report as a table and a verdict."""
    print_table(
        ("output", ">PSNR dB", ">max error", ">relative", ">cosine", ">top-1", ">top-5"),
        (
            (
                c.output,
                f"{c.psnr_db:.1f}",
                f"{c.max_error:.2e}",
                f"{c.relative_error:.1e}",
                f"{c.cosine:.7f}",
                percent(c.top1_agreement),
                percent(c.top5_agreement),
            )
            for c in report.comparisons
        ),
    )
    megabytes = report.package_bytes / 1e6
    click.echo(
        f"{report.package} ({report.precision}, {megabytes:.2f} MB) against {report.model}, "
        f"{report.images} images, {report.backend} backend"
    )
    for note in report.notes:
        click.echo(f"warning: {note}", err=True)
    for failure in report.failures:
        click.echo(f"FAILED: {failure}")
    if report.passed:
        gates = ", ".join(f"{k} {v:g}" for k, v in report.gates.items())
        click.echo(f"passed: {gates}")


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
