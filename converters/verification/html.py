"""A report as one HTML file: nothing is loaded from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.weights.output import replacing

from .report import Report, Step
from .svg import Line, line_plot

if TYPE_CHECKING:
    from ..program import Program
    from .inspect import Inspection

ROWS = 50  # images listed
_HIGHEST = 140.0  # dB: what lies above is exact as far as a plot is concerned
_LONG = 160  # characters of metadata shown; a config may be thousands
_MADE_WITH = "ondevice.versions"

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --dim: #59636e; --back: #fff;
  --panel: #f6f8fa; --rule: #d1d9e0; --ok: #1a7f37; --bad: #cf222e;
  --c0: #0969da; --c1: #bc4c00; --c2: #8250df; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --dim: #9198a1;
  --back: #0d1117; --panel: #161b22; --rule: #30363d; --ok: #3fb950; --bad: #f85149;
  --c0: #4493f8; --c1: #f0883e; --c2: #ab7df8; } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--text);
  background: var(--back); max-width: 1040px; margin: 0 auto; padding: 32px 24px 64px }
h1 { font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 17px; margin: 36px 0 8px }
p { margin: 6px 0 } .dim { color: var(--dim) }
.verdict { display: inline-block; font-weight: 600; padding: 2px 12px; border-radius: 999px;
  border: 1px solid currentColor; margin: 10px 0 }
.ok { color: var(--ok) } .bad { color: var(--bad) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid var(--rule);
  vertical-align: top }
th { color: var(--dim); font-weight: 500; white-space: nowrap }
.n { text-align: right } .n, .name, td.k { white-space: nowrap } td.k { color: var(--dim) }
td.v { overflow-wrap: anywhere }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, monospace; overflow-wrap: anywhere }
figure { margin: 0; padding: 12px; background: var(--panel); border: 1px solid var(--rule);
  border-radius: 8px }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg text { fill: var(--dim); paint-order: stroke; stroke: var(--panel); stroke-width: 4px }
.grid { stroke: var(--rule) } .lead { stroke: var(--bad) }
.limit { stroke: var(--bad); stroke-dasharray: 6 4 } svg .limit-text { fill: var(--bad) }
.curve polyline { fill: none; stroke: var(--c); stroke-width: 1.5 }
.dot { fill: var(--c) } .mark { fill: none; stroke: var(--bad); stroke-width: 2.5 }
svg .mark-text { fill: var(--bad); font-weight: 600 }
.c0 { --c: var(--c0) } .c1 { --c: var(--c1) } .c2 { --c: var(--c2) }
figcaption { color: var(--dim); padding-top: 6px } .key { color: var(--c); font-weight: 600 }
.bars td { padding: 2px 10px; border: 0 } .bars td:last-child { width: 60% }
.bar { display: block; height: 10px; border-radius: 3px; background: var(--c0);
  margin-top: 7px }
.moving { background: var(--c1) }
"""


def write_html(report: Report, package: Program, path: Path, *, force: bool = False) -> Path:
    """Write the report to ``path``, whole or not at all. Raises OutputError."""
    from .inspect import inspect

    with replacing(path, force=force) as partial:
        partial.write_text(to_html(report, inspect(package)), encoding="utf-8")
    return path


def to_html(report: Report, package: Inspection) -> str:
    """``package`` is what ``inspect`` found in the one that was verified."""
    title = f"{report.package}: {'passed' if report.passed else 'failed'}"
    body = "\n".join(
        section
        for section in (
            _verdict(report, package),
            _steps(report),
            _plot(report.steps),
            _images(report),
            _device(report.device),
            _operations(package),
            _about(package),
            _versions(report, package),
        )
        if section
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _verdict(report: Report, package: Inspection) -> str:
    kind, word = ("ok", "passed") if report.passed else ("bad", "failed")
    bad = "".join(f'<p class="bad">{escape(line)}</p>' for line in report.failures)
    jumps = "".join(
        f"<p>{escape(step.name)}: the error first jumps at "
        f"<code>{escape(str(step.jump))}</code></p>"
        for step in report.steps
        if step.jump
    )
    notes = "".join(f'<p class="dim">{escape(note)}</p>' for note in report.notes)
    return (
        f'<h1>{escape(report.package)}</h1><p class="dim">against {escape(report.model)} in '
        f"MLX float32, {report.images} images; {report.package_bytes / 1e6:.2f} MB, "
        f"{escape(package.target)} and later</p>"
        f'<p class="verdict {kind}">{word}</p>{bad}{jumps}{notes}'
    )


def _steps(report: Report) -> str:
    header = (
        "step|output||>PSNR dB|>spread dB|>relative|>cosine|>top-1|>top-5|worst image|gates"
    )
    return "<h2>Steps</h2>" + _table(header.split("|"), _step_rows(report.steps))


def _step_rows(steps: Sequence[Step]) -> Iterator[list[str]]:
    for step in steps:
        gates = ", ".join(f"{name} {limit:g}" for name, limit in step.gates.items())
        for c in step.comparisons:
            failed = c.failures(step.gates)
            verdict = '<b class="bad">failed</b>' if failed else '<span class="ok">ok</span>'
            yield [
                f'<span class="name">{escape(step.name)}</span>',
                escape(c.output),
                verdict,
                f"{c.psnr_db:.1f}",
                "-" if c.spread_db is None else f"{c.spread_db:.1f}",
                f"{c.relative_error:.1e}",
                f"{c.cosine:.7f}",
                _percent(c.top1_agreement),
                _percent(c.top5_agreement),
                escape(c.worst_image),
                escape(gates),
            ]


def _plot(steps: Sequence[Step]) -> str:
    """The error of every value; steps without deviations have no curve."""
    drawn = [step for step in steps if step.deviations]
    if not drawn:
        return ""
    gates = {step.gates["psnr_db"] for step in drawn if "psnr_db" in step.gates}
    longest = max((step.deviations for step in drawn), key=len)
    places = {d.name: i for i, d in enumerate(longest)}
    plot = line_plot(
        [_line(step, places) for step in drawn],
        y_label="PSNR in dB: higher is closer",
        x_label="computed value, in order",
        limit=min(gates, default=None),
    )
    keys = ", ".join(
        f'<span class="key c{i}">{escape(step.name)}</span> (on {escape(step.worst_image)})'
        for i, step in enumerate(drawn)
    )
    return (
        f"<h2>Error by layer</h2><figure>{plot}<figcaption>{keys}. Of the float32 package the "
        "layers with weights are held to MLX's; of the others every value is to the float32 "
        "package's. On the worst image.</figcaption></figure>"
    )


def _line(step: Step, places: Mapping[str, int]) -> Line:
    """A step's curve; ``places`` has the order of all values."""
    drawn = [d for d in step.deviations if d.name in places]
    return Line(
        [(places[d.name], min(d.after_db, _HIGHEST)) for d in drawn],
        [str(d) for d in drawn],
        drawn.index(step.jump) if step.jump in drawn else None,
    )


def _images(report: Report) -> str:
    """Every image of the package as saved, the worst first."""
    rows = [(c.output, row) for c in report.comparisons for row in c.per_image]
    rows.sort(key=lambda entry: entry[1].psnr_db)
    cells = (
        [
            escape(row.image),
            escape(output),
            f"{row.psnr_db:.1f}",
            f"{row.max_error:.2e}",
            {True: "yes", False: "no", None: "-"}[row.top1_agrees],
        ]
        for output, row in rows[:ROWS]
    )
    header = ("image", "output", ">PSNR dB", ">max error", "same class")
    more = f'<p class="dim">{len(rows) - ROWS} more, all closer</p>' if len(rows) > ROWS else ""
    return "<h2>Images, the worst first</h2>" + _table(header, cells) + more


def _device(device: Any) -> str:
    """What was measured with Core ML, if it was."""
    if not device:
        return ""
    header = ("compute units", ">first load ms", ">median ms", ">spread ms", "placement")
    rows = (
        [
            escape(unit["units"]),
            f"{unit['first_load_ms']:.1f}",
            f"{unit['median_ms']:.2f}",
            f"{unit['spread_ms']:.2f}",
            escape(", ".join(f"{k} {n}" for k, n in unit["placement"].items()) or "-"),
        ]
        for unit in device["units"]
    )
    off = [name for unit in device["units"] for name in unit["fallen_off"]]
    listed = ", ".join(f"<code>{escape(name)}</code>" for name in off[:ROWS])
    below = f"<p>{len(off)} not on the Neural Engine: {listed}</p>" if off else ""
    return f"<h2>On {escape(device['name'])}</h2>{_table(header, rows)}{below}"


def _operations(package: Inspection) -> str:
    from ..coreml.stored import DATA_MOVING

    most = max(package.operations.values(), default=1)
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{count}</td><td><span class="bar'
        f'{" moving" if name in DATA_MOVING else ""}" style="width:{100 * count / most:.1f}%">'
        "</span></td></tr>"
        for name, count in package.operations.items()
    )
    return (
        f"<h2>{package.operation_count} operations, of which {package.data_moving_count} only "
        f'move data</h2><div class="scroll"><table class="bars">{rows}</table></div>'
    )


def _about(package: Inspection) -> str:
    formats = ", ".join(
        f"{count} x {name} ({size / 1e6:.2f} MB)"
        for name, (count, _, size) in package.formats().items()
    )
    sides = [
        (side, " ".join(f"{f.name}: {f.kind} {f.dtype} {list(f.shape) or ''}".split()))
        for side, features in (("input", package.inputs), ("output", package.outputs))
        for f in features
    ]
    said = {k: v for k, v in package.metadata.items() if k != _MADE_WITH}
    facts = [("weights", formats), *sides, *said.items()]
    return "<h2>Package</h2>" + _facts(facts)


def _versions(report: Report, package: Inspection) -> str:
    made = package.metadata.get(_MADE_WITH, "")
    try:
        with_ = ", ".join(f"{k} {v}" for k, v in json.loads(made).items())
    except (ValueError, AttributeError):
        with_ = made
    checked = ", ".join(f"{k} {v}" for k, v in report.versions.items())
    return "<h2>Versions</h2>" + _facts([("made with", with_), ("checked with", checked)])


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f'<tr><td class="k">{escape(name)}</td><td class="v">{escape(_short(value))}</td></tr>'
        for name, value in facts
        if value
    )
    return f'<div class="scroll"><table>{rows}</table></div>'


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]} …"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML; a title that starts with ">" stands over numbers."""
    kinds = [' class="n"' if title.startswith(">") else "" for title in header]
    titles = (title.removeprefix(">") for title in header)
    head = "".join(f"<th{k}>{escape(t)}</th>" for k, t in zip(kinds, titles, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{k}>{cell}</td>" for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    inside = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{inside}</table></div>'


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
