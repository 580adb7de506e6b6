"""A report as one HTML file that loads nothing: ``report.html.jinja``, filled in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.pages import Axis, Curve, plot, template
from ondevice.weights.output import replacing

from .report import Report, Step

if TYPE_CHECKING:
    from jinja2 import Template

    from ..program import Program
    from .inspect import Inspection

ROWS = 50  # images listed
_HIGHEST = 140.0  # dB: what lies above is exact as far as a plot is concerned
_GRID = 20  # dB
_LONG = 160  # characters of metadata shown; a config may be thousands
_MADE_WITH = "ondevice.versions"


def write_html(report: Report, package: Program, path: Path, *, force: bool = False) -> Path:
    """Write the report to ``path``, whole or not at all. Raises OutputError."""
    from .inspect import inspect

    with replacing(path, force=force) as partial:
        partial.write_text(to_html(report, inspect(package)), encoding="utf-8")
    return path


def to_html(report: Report, package: Inspection) -> str:
    """The page; ``package`` is what ``inspect`` found in the one that was verified."""
    rows = list(_image_rows(report))
    units = report.device["units"] if report.device else []
    return _template().render(
        report=report,
        package=package,
        plot=_plot(report.steps),
        precision=list(_precision(report.precision)),
        images=rows[:ROWS],
        more=max(0, len(rows) - ROWS),
        units=map(_unit_row, units),
        fallen_off=[name for unit in units for name in unit["fallen_off"]],
        rows=ROWS,
        most=max(package.operations.values(), default=1),
        data_moving=package.data_moving,
        about=list(_about(package)),
        versions=_versions(report, package),
    )


@cache
def _template() -> Template:
    return template(
        Path(__file__).with_name("report.html.jinja"), megabytes=_megabytes, short=_short
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]} …"


def _plot(steps: Sequence[Step]) -> str:
    """The error of every value; steps without deviations have no curve."""
    drawn = [step for step in steps if step.deviations]
    if not drawn:
        return ""
    gates = {step.gates["psnr_db"] for step in drawn if "psnr_db" in step.gates}
    longest = max((step.deviations for step in drawn), key=len)
    positions = {d.name: i for i, d in enumerate(longest)}
    curves = [_curve(step, positions) for step in drawn]
    last = max(x for curve in curves for x, _ in curve.points)
    top = _GRID * int(max(y for curve in curves for _, y in curve.points) // _GRID + 1)
    ticks = [(value, str(value)) for value in range(0, top + 1, _GRID)]
    return plot(
        curves,
        Axis("computed value, in order", 0, last, [(0, "1"), (last, f"{last + 1:g}")]),
        Axis("PSNR in dB: higher is closer", 0, top, ticks),
        limit=(min(gates), f"gate {min(gates):g} dB") if gates else None,
    )


def _curve(step: Step, positions: Mapping[str, int]) -> Curve:
    """The error of each value of a step; ``positions`` has the order of all values."""
    drawn = [d for d in step.deviations if d.name in positions]
    return Curve(
        [(positions[d.name], min(d.after_db, _HIGHEST)) for d in drawn],
        [str(d) for d in drawn],
        drawn.index(step.jump) if step.jump in drawn else None,
    )


def _image_rows(report: Report) -> Iterator[Sequence[str]]:
    """Every image of the package as saved, the worst first."""
    found = [(row, c.output) for c in report.comparisons for row in c.per_image]
    for row, output in sorted(found, key=lambda entry: entry[0].psnr_db):
        agrees = {True: "yes", False: "no", None: "-"}[row.top1_agrees]
        yield row.image, output, f"{row.psnr_db:.1f}", f"{row.max_error:.2e}", agrees


def _precision(found: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """The APs of both sides, if they were measured on images with objects."""
    if found and found["difference"] is not None:
        model, package = (f"{found[side]:.3f}" for side in ("model", "package"))
        interval = f"{found['low']:+.3f} to {found['high']:+.3f}"
        yield model, package, f"{found['difference']:+.3f}", interval


def _unit_row(unit: Mapping[str, Any]) -> Sequence[str]:
    """What was measured with Core ML on one choice of compute units."""
    times = (
        f"{unit['first_load_ms']:.1f}",
        f"{unit['median_ms']:.2f}",
        f"{unit['spread_ms']:.2f}",
    )
    placement = ", ".join(f"{kind} {n}" for kind, n in unit["placement"].items()) or "-"
    return unit["units"], *times, placement


def _about(package: Inspection) -> Iterator[tuple[str, str]]:
    yield (
        "weights",
        ", ".join(
            f"{count} x {name} ({_megabytes(size)})"
            for name, (count, _, size) in package.formats().items()
        ),
    )
    for side, features in (("input", package.inputs), ("output", package.outputs)):
        for f in features:
            yield side, " ".join(f"{f.name}: {f.kind} {f.dtype} {list(f.shape) or ''}".split())
    yield from ((k, v) for k, v in sorted(package.metadata.items()) if k != _MADE_WITH)


def _versions(report: Report, package: Inspection) -> list[tuple[str, str]]:
    made = package.metadata.get(_MADE_WITH, "")
    try:
        made_with = ", ".join(f"{k} {v}" for k, v in json.loads(made).items())
    except (ValueError, AttributeError):
        made_with = made
    checked_with = ", ".join(f"{k} {v}" for k, v in report.versions.items())
    return [("made with", made_with), ("checked with", checked_with)]
