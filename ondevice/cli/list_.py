"""``ondevice list``: the models and their published weights."""

from __future__ import annotations

import difflib
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from ..errors import UnknownModelError
from ..registry import Checkpoint, ModelSpec, list_models, model_spec, registered_name
from ._output import json_option, print_json, print_table, short_number

_UNITS = {"K": 1e3, "M": 1e6, "G": 1e9}


def _count(text: str) -> float:
    """A number with a unit, such as 800K, 5M or 1.2G."""
    number, unit = text, _UNITS.get(text[-1:].upper())
    try:
        found = float(number[:-1] if unit else number) * (unit or 1)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise click.BadParameter(f"{text!r} is not a number such as 800K, 5M or 1.2G.")
    return found


_SHIPPED = Path(__file__).parents[1] / "weights" / "shipped"
_HEADER = ("model", ">params", ">MACs", ">px", ">top-1", "licence", "weights")


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--family", help="List only this family, such as shvit.")
@click.option(
    "--license", "license_", metavar="NAME", help="List only weights under this licence."
)
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
    family: str | None,
    license_: str | None,
    max_params: float | None,
    max_macs: float | None,
    best_under: float | None,
    as_json: bool,
) -> None:
    """List the models and weights whose name matches PATTERN.

    PATTERN is a part of the name, or a shell pattern such as 'shvit_*.in1k'. A name without
    its tag, the part after the dot, means the first of its rows.
    """
    pattern = registered_name(pattern) or pattern
    specs = [model_spec(name) for name in list_models()]
    rows = [_facts(s, c) for s in specs for c in s.checkpoints or (None,)]
    _check("family", family, {row["family"] for row in rows})
    _check("licence", license_, {row["license"] for row in rows} - {None})
    wanted = {"family": family, "license": license_}
    limits = (("params", max_params), ("params", best_under), ("macs", max_macs))
    shown = [
        row
        for row in rows
        if _matches(row["name"], pattern)
        and all(value in (None, row[key]) for key, value in wanted.items())
        and all(row[key] and row[key] <= most for key, most in limits if most is not None)
    ]
    if best_under is not None:
        shown = [row for row in shown if row["top1_on_imagenet"]]
        shown.sort(key=lambda row: -row["top1"])
    if not shown and not any(most is not None for _, most in limits) and pattern != "*":
        raise UnknownModelError(f"no model matches {pattern!r}; {_hint(pattern, rows)}")
    print_json(shown) if as_json else print_table(_HEADER, map(_row, shown))


def _facts(spec: ModelSpec, checkpoint: Checkpoint | None) -> dict[str, Any]:
    tag = checkpoint.tag if checkpoint else ""
    info = spec.info(tag) if checkpoint else spec.info()
    shipped = checkpoint is not None and not checkpoint.repo
    saved = json.loads((_SHIPPED / info.name / "config.json").read_bytes()) if shipped else {}
    return {
        "name": f"{spec.name}.{tag}" if tag else spec.name,
        "family": spec.family,
        "params": spec.params,
        "macs": spec.macs,
        "size": saved.get("preprocess", {}).get("size", info.preprocess.size),
        "top1": saved.get("metrics", {}).get("top1", info.top1),
        "top1_on_imagenet": info.top1 is not None,
        "license": checkpoint.license if checkpoint else None,
        "weights": "shipped" if shipped else checkpoint.repo if checkpoint else None,
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


def _check(what: str, given: str | None, known: set[str]) -> None:
    if given is not None and given not in known:
        raise click.UsageError(f"No {what} {given!r}; there are: {', '.join(sorted(known))}.")


def _hint(pattern: str, rows: list[dict[str, Any]]) -> str:
    names = {row["name"].partition(".")[0] for row in rows}
    close = difflib.get_close_matches(pattern.strip("*").partition(".")[0], names, cutoff=0.4)
    return f"the nearest are {', '.join(close)}" if close else "`ondevice list` has them all"
