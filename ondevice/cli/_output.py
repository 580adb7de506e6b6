"""How commands speak: data on stdout, as a table or JSON; talk on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def print_json(value: Any) -> None:
    """``value`` as indented JSON on stdout."""
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


def counted(number: int, thing: str) -> str:
    """A number of things: "1 image", "2,000 images"."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def short_number(value: float | None) -> str | None:
    """Three digits and a unit: 6328624 is "6.33M"."""
    for unit in ("", "K", "M"):
        if value is None or value < 999.5:
            return value if value is None else f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def progress(
    items: Iterable[T], label: str, length: int, *, unit: str = "images"
) -> Iterator[T]:
    """``items``, of which there are ``length``, with a line on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    show, done = Progress(label, unit), 0
    try:
        for done, item in enumerate(items, 1):
            yield item
            show(done, length)
    finally:
        if 0 < done < length:
            click.echo(err=True)  # what is said next has a line of its own


class Progress:
    """A line on the terminal: how far, how fast, how long still. An ``on_progress``."""

    def __init__(self, label: str, unit: str = "images") -> None:
        self.label, self.unit = label, unit
        self.begin: tuple[float, int] | None = None  # of this run, its first call left out

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` are done."""
        now = time.monotonic()
        start, first = self.begin = self.begin or (now, done)
        text = f"{self.label} {done:,} of {total:,}"
        if done > first and now > start:
            rate = (done - first) / (now - start)
            left = round((total - done) / rate)
            clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
            text += f"  {rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s  {clock} left"
        click.echo(f"\r{text:70}", err=True, nl=done == total)


def check_force(ctx: click.Context, option: str) -> None:
    """Raises UsageError for a --force without the ``option`` whose output it replaces."""
    if ctx.params["force"] and ctx.params[option] is None:
        raise click.UsageError(f"--force goes with --{option}: nothing else is written.")


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether an option is on the command line, be it with its default value."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
