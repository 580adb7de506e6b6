"""``ondevice list``: the models and their published weights."""

from __future__ import annotations

import difflib
import json
import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from ..errors import UnknownModelError
from ..registry import Checkpoint, ModelSpec, list_models, model_spec, registered_name
from ._output import json_option, print_json, print_table, short_number

_SHIPPED = Path(__file__).parents[1] / "weights" / "shipped"
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}
_WORDS = {"license": "licence"}
_HEADER = ("model", ">params", ">MACs", ">px", ">top-1", "licence", "weights")


def _count(text: str) -> float:
    """A number with a unit or without, such as 800K, 5M or 1.2G."""
    unit = text[-1:].upper() if text[-1:].upper() in _UNITS else ""
    try:
        count = float(text[: len(text) - len(unit)]) * _UNITS[unit]
    except ValueError:
        count = math.nan
    if not 0 < count < math.inf:
        raise click.BadParameter(f"{text!r} is not a number such as 800K, 5M or 1.2G.")
    return count


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--family", help="List only this family, such as shvit.")
@click.option("--license", metavar="NAME", help="List only weights under this licence.")
@click.option("--size", type=int, metavar="PX", help="List only weights for PX x PX images.")
@click.option(
    "--max-params",
    type=_count,
    metavar="COUNT",
    help="List only models of so many parameters: 5M.",
)
@click.option(
    "--max-macs",
    type=_count,
    metavar="COUNT",
    help="List only models of so many multiply-adds: 1.2G.",
)
@click.option(
    "--best-under",
    type=_count,
    metavar="COUNT",
    help="The same as --max-params, the best accuracy on ImageNet-1k first.",
)
@json_option
def list_command(
    pattern: str,
    max_params: float | None,
    max_macs: float | None,
    best_under: float | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """List the models and weights whose name matches PATTERN.

    PATTERN is a part of the name, or a shell pattern such as 'shvit_*.in1k'. A name without
    its tag, the part after the dot, means the first of its rows.
    """
    pattern = registered_name(pattern) or pattern
    specs = [model_spec(name) for name in list_models()]
    rows = [_facts(s, c) for s in specs for c in s.checkpoints or (None,)]
    for key, value in wanted.items():
        _check(key, value, {row[key] for row in rows} - {None})
    shown = [
        row
        for row in rows
        if _matches(row["name"], pattern)
        and all(value in (None, row[key]) for key, value in wanted.items())
    ]
    if not shown and pattern != "*":
        raise UnknownModelError(f"no model matches {pattern!r}; {_hint(pattern, rows)}")
    for key, most in (("params", max_params), ("params", best_under), ("macs", max_macs)):
        if most is not None:
            shown = [row for row in shown if row[key] is not None and row[key] <= most]
    if best_under is not None:
        shown = _most_accurate_first(shown)
    print_json(shown) if as_json else print_table(_HEADER, map(_row, shown))


def _most_accurate_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose accuracy on ImageNet-1k is known: that of weights that ship is on others."""
    known = (row for row in rows if row["top1"] is not None and row["weights"] != "shipped")
    return sorted(known, key=lambda row: -row["top1"])


def _facts(spec: ModelSpec, checkpoint: Checkpoint | None) -> dict[str, Any]:
    name = f"{spec.name}.{checkpoint.tag}" if checkpoint else spec.name
    preprocess = checkpoint.preprocess if checkpoint else None
    shipped = checkpoint is not None and checkpoint.is_shipped
    saved = json.loads((_SHIPPED / name / "config.json").read_bytes()) if shipped else {}
    size, top1 = (preprocess or spec.preprocess).size, checkpoint.top1 if checkpoint else None
    return {
        "name": name,
        "family": spec.family,
        "params": spec.params,
        "macs": spec.macs,
        "size": saved.get("preprocess", {}).get("size", size),
        "top1": saved.get("metrics", {}).get("top1", top1),
        "license": checkpoint.license if checkpoint else None,
        "weights": "shipped"
        if shipped
        else checkpoint.repo or checkpoint.url
        if checkpoint
        else None,
    }


def _row(facts: dict[str, Any]) -> tuple[object, ...]:
    params, macs = short_number(facts["params"]), short_number(facts["macs"])
    top1 = None if facts["top1"] is None else f"{facts['top1']:.2f}"
    rest = (facts["license"], facts["weights"])
    return facts["name"], params, macs, facts["size"], top1, *rest


def _matches(name: str, pattern: str) -> bool:
    if not any(c in pattern for c in "*?["):
        return pattern in name
    return fnmatchcase(name, pattern) or fnmatchcase(name.partition(".")[0], pattern)


def _check(key: str, given: Any, known: set[Any]) -> None:
    if given is not None and given not in known:
        there_are = ", ".join(map(str, sorted(known)))
        raise click.UsageError(f"No {_WORDS.get(key, key)} {given!r}; there are: {there_are}.")


def _hint(pattern: str, rows: list[dict[str, Any]]) -> str:
    names = {row["name"].partition(".")[0] for row in rows}
    close = difflib.get_close_matches(pattern.strip("*").partition(".")[0], names, cutoff=0.4)
    return f"the nearest are {', '.join(close)}" if close else "`ondevice list` has them all"
