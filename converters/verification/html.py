"""Reports of packages as HTML files that load nothing: a comparison, or what is inside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.pages import Axis, Cell, Curve, megabytes, percent, plot, template
from ondevice.weights.output import replacing

from .report import Report, Step

if TYPE_CHECKING:
    from jinja2 import Template

    from ..program import Program
    from .inspect import Inspection

ROWS = 50  # images listed
LARGEST = 20  # weights listed
_HIGHEST = 140.0  # dB: what lies above is exact as far as a plot is concerned
_GRID = 20  # dB
_MADE_WITH = "ondevice.versions"
_AGREES = {True: "yes", False: Cell("no", "bad"), None: "-"}


def write_html(report: Report, package: Program, path: Path, *, force: bool = False) -> Path:
    """Write the report to ``path``, whole or not at all. Raises OutputError."""
    from .inspect import inspect

    with replacing(path, force=force) as partial:
        partial.write_text(to_html(report, inspect(package)), encoding="utf-8")
    return path


def write_inspection(
    package: Program, path: Path, *, function: str | None = None, force: bool = False
) -> Path:
    """Write what is in a package to ``path``, whole or not at all. Raises OutputError."""
    from .drawing import draw_program
    from .inspect import inspect

    with replacing(path, force=force) as partial:
        page = inspection_to_html(inspect(package, function), draw_program(package, function))
        partial.write_text(page, encoding="utf-8")
    return path


def to_html(report: Report, package: Inspection) -> str:
    """The page; ``package`` is what ``inspect`` found in the one that was verified."""
    rows = list(_image_rows(report))
    units = report.device["units"] if report.device else []
    return _template("report").render(
        **_inside(package),
        report=report,
        plot=_plot(report.steps),
        precision=list(_precision(report.precision)),
        drawn=[f"{s.name} (on {s.worst_image})" for s in report.steps if s.deviations],
        steps=list(_step_rows(report)),
        images=rows[:ROWS],
        more=max(0, len(rows) - ROWS),
        units=list(map(_unit_row, units)),
        fallen_off=[name for unit in units for name in unit["fallen_off"]],
        rows=ROWS,
        versions=[
            _made_with(package),
            ("checked with", ", ".join(f"{k} {v}" for k, v in report.versions.items())),
        ],
    )


def inspection_to_html(package: Inspection, graph: str) -> str:
    """The page of what is in a package; ``graph`` is SVG of it."""
    largest = sorted(package.weights, key=lambda weight: -weight.bytes)[:LARGEST]
    return _template("inspection").render(
        **_inside(package),
        findings=[
            (
                f.rule,
                _SEVERITIES.get(f.severity, f.severity),
                f.count,
                f.advice,
                "; ".join(f.examples),
            )
            for f in package.findings
        ],
        formats=[
            (name, count, f"{size:,}", f"{total:,}")
            for name, (count, size, total) in package.formats().items()
        ],
        graph=graph,
        largest=[(w.name, w.bytes, f"{w.bytes:,} bytes", "") for w in largest],
        versions=[_made_with(package)],
    )


_SEVERITIES = {name: Cell(name, "bad") for name in ("error", "warning")}


@cache
def _template(name: str) -> Template:
    return template(Path(__file__).with_name(f"{name}.html.jinja"))


def _inside(package: Inspection) -> dict[str, Any]:
    """What every report of a package shows of it."""
    return {
        "package": package,
        "operations": [
            (name, count, count, "c1" if name in package.data_moving else "")
            for name, count in package.operations.items()
        ],
        "about": list(_about(package)),
    }


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


def _step_rows(report: Report) -> Iterator[Sequence[object]]:
    """Each output of each step, with the gates that it has to pass."""
    for step in report.steps:
        gates = ", ".join(f"{name} {limit:g}" for name, limit in step.gates.items())
        for c in step.comparisons:
            yield (
                step.name,
                c.output,
                Cell("failed", "bad") if c.failures(step.gates) else Cell("ok", "ok"),
                f"{c.psnr_db:.1f}",
                "-" if c.spread_db is None else f"{c.spread_db:.1f}",
                f"{c.relative_error:.1e}",
                f"{c.cosine:.7f}",
                percent(c.top1_agreement),
                percent(c.top5_agreement),
                ", ".join(f"{name} {value:.4g}" for name, value in c.of_kind.items()),
                c.worst_image,
                Cell(gates, "dim"),
            )


def _image_rows(report: Report) -> Iterator[Sequence[object]]:
    """Every image of the package as saved, the worst first."""
    found = [(row, c.output) for c in report.comparisons for row in c.per_image]
    for row, output in sorted(found, key=lambda entry: entry[0].psnr_db):
        agrees = _AGREES[row.top1_agrees]
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
            f"{count} x {name} ({megabytes(size)})"
            for name, (count, _, size) in package.formats().items()
        ),
    )
    for side, features in (("input", package.inputs), ("output", package.outputs)):
        for f in features:
            yield side, " ".join(f"{f.name}: {f.kind} {f.dtype} {list(f.shape) or ''}".split())
    yield from ((k, v) for k, v in sorted(package.metadata.items()) if k != _MADE_WITH)


def _made_with(package: Inspection) -> tuple[str, str]:
    said = package.metadata.get(_MADE_WITH, "")
    with suppress(ValueError, AttributeError):
        said = ", ".join(f"{k} {v}" for k, v in json.loads(said).items())
    return "made with", said
