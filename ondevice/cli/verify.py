"""``ondevice verify``: prove that a package computes what the model computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError
from ..image.files import expand
from ..pages import percent
from ..weights.output import check_free
from ._images import SKIPS, Skipped, files, max_level_option, spread
from ._output import check_force, counted, json_option, print_json, print_table, progress
from ._verify_boxes import objects_in, precision_text

if TYPE_CHECKING:
    from converters.program import Program
    from converters.verification.report import Report, Step

RUN_ON = ("reference", "device", "auto")


def _gate(text: str) -> tuple[str, float]:
    """``psnr_db=50`` as a name and a limit."""
    name, _, limit = text.partition("=")
    try:
        return name.strip(), float(limit)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not like psnr_db=50") from None


@click.command("verify", epilog=f"Of --images: {SKIPS}")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--model", help="As for export; default: what the package says.")
@click.option(
    "--images",
    help="A folder, a pattern, a .txt list, or an image; for a detector a set in COCO's form "
    "as well, which gives the average precision of both sides.",
)
@max_level_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="The number of images to compare on.",
)
@click.option(
    "--run-on",
    type=click.Choice(RUN_ON),
    default="reference",
    show_default=True,
    help="Run the package by what runs on any machine, or on this Apple device as well.",
)
@click.option(
    "--baselines/--no-baselines",
    default=True,
    show_default=True,
    help="Also export the model afresh, to see at which step precision is lost.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Another package of the model, as of another format: run both, compare every value "
    "that both compute.",
)
@click.option(
    "gates", "--gate", multiple=True, type=_gate, metavar="NAME=VALUE", help="As psnr_db=50."
)
@click.option(
    "--report",
    "measured",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON that the Bench of OnDevice Camera shared: latency and placement on a phone.",
)
@click.option("--html", type=click.Path(path_type=Path), help="Write a report to this file.")
@click.option("--force", is_flag=True, help="Replace an existing report.")
@json_option
@click.pass_context
def verify_command(
    ctx: click.Context,
    /,
    package: Path,
    model: str | None,
    images: str | None,
    max_level: float | None,
    limit: int,
    against: Path | None,
    gates: tuple[tuple[str, float], ...],
    measured: Path | None,
    html: Path | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare PACKAGE with the model it came from, on the same images.

    Without --images on four test images, which show gross faults of a compressed package
    only; else on at most --limit images, spread evenly. Exit status 1 if a gate is missed.
    """
    from converters.backend import load_package
    from converters.verification.verify import check_gates, verify

    check_force(ctx, "html")
    device = _device(measured, options["run_on"])
    options["gates"] = check_gates(dict(gates))
    if html:
        check_free(html.absolute(), force=force)
    opened = load_package(package)
    options["against"] = load_package(against) if against else None
    objects = objects_in(opened, images, max_level, limit)
    given = [] if images is None else [images]
    chosen = _images(opened, objects.paths if objects else given, max_level, limit)
    network = _model(opened, model)
    detectors = objects.detectors(network, opened) if objects else []
    chosen = chosen or _samples(opened, network)[:limit]
    shown, skipped = progress(chosen, "verifying", len(chosen)), Skipped()
    report = verify(network, opened, shown, on_error=skipped, **options)
    precision = objects.measure(detectors, skipped) if objects else {}
    report = replace(report, device=device or report.device, precision=precision)
    if html:
        _write_html(report, opened, html, force)
    if as_json:
        print_json(report.to_dict() | {"skipped": skipped.problems})
    else:
        print_report(report)
    status = skipped.status(len(chosen))
    ctx.exit(status if report.passed else 1)


def _write_html(report: Report, package: Program, path: Path, force: bool) -> None:
    from converters.verification.html import write_html

    write_html(report, package, path, force=force)


def _device(measured: Path | None, run_on: str) -> dict[str, Any]:
    """What a phone measured. Raises UsageError where this machine measures as well."""
    from converters.verification.device_report import read_device_report

    if measured and run_on != "reference":
        raise click.UsageError("--report is a phone's, --run-on this machine's: give one.")
    return read_device_report(measured) if measured else {}


def _images(
    package: Program, sources: Sequence[str] | None, max_level: float | None, limit: int
) -> list[Any]:
    """At most ``limit`` of the images that were asked for. Raises ConfigError."""
    if not sources:
        if max_level is not None:
            raise ConfigError("--max-level goes with --images: it is for those")
        return []
    features = [package.as_image(feature) for feature in package.inputs.values()]
    if "image" not in {feature.kind for feature in features}:
        takes = ", ".join(map(str, features)) or "nothing"
        raise ConfigError(
            f"{package.path} takes no images ({takes}): leave out --images; a text encoder is "
            "shown captions if --model names its folder, beside a tokenizer.json"
        )
    return files(spread(list(expand(sources)), limit), max_level)


def _model(package: Program, name: str | None) -> Any:
    """The model called ``name``, or else the one the package says it came from."""
    from ..tasks.load import load
    from ..weights.folder import create_model

    said = package.metadata.get("ondevice.model")
    if not (name or said):
        raise ConfigError(f"{package.path} does not say what model it is; give it with --model")
    # What a stranger's package says is a name of ours, never a repository.
    return load(name) if name else create_model(str(said), pretrained=True)


def _samples(package: Program, network: Any) -> list[Any]:
    """What is shown where nothing is given: test images of the package's size, or texts."""
    signature = network.signature
    if package.preprocess and signature.images:
        signature = signature.resized(package.preprocess.size)
    return list(signature.samples())


def print_report(report: Report) -> None:
    """Each step's metrics and a verdict."""
    click.echo(
        f"{report.package} ({report.package_bytes / 1e6:.2f} MB) against {report.model} in "
        f"MLX float32, {counted(report.images, 'image')}"
    )
    header = (
        "step",
        "output",
        ">PSNR dB",
        ">spread",
        ">relative",
        ">cosine",
        ">top-1",
        ">top-5",
    )
    print_table((*header, "worst image", "verdict"), _rows(report))
    for line in dict.fromkeys(_of_kinds(report)):
        click.echo(line)
    if report.precision:
        click.echo(precision_text(report.precision))
    for note in report.notes:
        click.echo(f"warning: {note}", err=True)
    for problem in report.problems:
        click.echo(f"FAILED: {problem}")
    for step in report.steps:
        _print_failure(step)
    if report.device:
        _print_device(report.device)
    if report.against:
        failures = report.against.failures
        click.echo("".join(f"FAILED: {line}" for line in failures) or str(report.against))
    if report.passed:
        click.echo(f"passed: {gate_text(report.steps[-1])}")


def _print_device(device: Mapping[str, Any]) -> None:
    """Latency and placement, a line for each choice of compute units."""
    click.echo(f"on {device['name']}")
    print_table(
        ("compute units", ">first load ms", ">median ms", ">spread ms", "placement"),
        (
            (
                unit["units"],
                f"{unit['first_load_ms']:.1f}",
                f"{unit['median_ms']:.2f}",
                f"{unit['spread_ms']:.2f}",
                ", ".join(f"{where} {n}" for where, n in unit["placement"].items()),
            )
            for unit in device["units"]
        ),
    )


def _rows(report: Report) -> Iterator[tuple[object, ...]]:
    for step in report.steps:
        for c in step.comparisons:
            yield (
                step.name,
                c.output,
                f"{c.psnr_db:.1f}",
                decibels(c.spread_db),
                f"{c.relative_error:.1e}",
                f"{c.cosine:.7f}",
                percent(c.top1_agreement),
                percent(c.top5_agreement),
                c.worst_image,
                "FAILED" if c.failures(step.gates) else "ok",
            )


def _of_kinds(report: Report) -> Iterator[str]:
    """A line for each output of the package that has figures of its own kind."""
    for c in report.comparisons:
        if c.of_kind:
            yield f"{c.output}: {', '.join(f'{n} {v:.4g}' for n, v in c.of_kind.items())}"


def _print_failure(step: Step) -> None:
    for line in step.failures:
        click.echo(f"FAILED: {step.name}: {line} (worst: {step.worst_image})")
    if step.jump:
        click.echo(f"        the error first jumps at {step.jump}")


def gate_text(step: Step) -> str:
    """The gates of a step, on one line."""
    return ", ".join(f"{name} {limit:g}" for name, limit in step.gates.items())


def decibels(value: float | None) -> str:
    """For the table; - where it cannot be judged."""
    return "-" if value is None else f"{value:.1f}"
