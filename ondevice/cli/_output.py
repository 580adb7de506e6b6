"""How commands speak: data on stdout, as a table or JSON; talk on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns under ``header``, to the right where a title starts with ">"."""
    right = [title.startswith(">") for title in header]
    titles = [title.removeprefix(">") for title in header]
    cells = [titles, *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        aligned = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(aligned).rstrip())


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def short_number(value: float | None) -> str | None:
    """Three digits and a unit: 6328624 is "6.33M"."""
    for unit in ("", "K", "M"):
        if value is None or value < 999.5:
            return value if value is None else f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def progress(items: Iterable[T], label: str, length: int | None = None) -> Iterator[T]:
    """``items``, with a bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, length=length, label=label, file=sys.stderr) as bar:
        yield from bar


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether an option was typed, as its default may be."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
