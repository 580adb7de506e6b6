"""``ondevice inspect``: what is in a package, and what the Neural Engine may dislike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..weights.output import check_free
from ._output import check_force, json_option, print_json, print_table, short_number

if TYPE_CHECKING:
    from converters.verification.inspect import Inspection

_LONG = 100  # longer metadata, as a list of labels is, are cut in the text form


@click.command("inspect")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--function", help="Of a package with several; default: its own default.")
@click.option("--weights", "each", is_flag=True, help="List every weight.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a report to this file.")
@click.option("--force", is_flag=True, help="Replace an existing report.")
@json_option
@click.pass_context
def inspect_command(
    ctx: click.Context,
    package: Path,
    function: str | None,
    each: bool,
    html: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print what PACKAGE holds: operations, weights, inputs and outputs, origin, and a lint.

    Works on anybody's package, on any machine.
    """
    from converters.backend import load_package
    from converters.verification.inspect import inspect

    check_force(ctx, "html")
    if html:
        check_free(html.absolute(), force=force)
    opened = load_package(package)
    found = inspect(opened, function)
    if html:
        from converters.verification.html import write_inspection

        write_inspection(opened, html, function=function, force=force)
    if as_json:
        print_json(found.to_dict())
        return
    _print_summary(found)
    _print_operations(found)
    _print_weights(found, each)
    _print_origin(found)
    _print_findings(found)


def _print_summary(found: Inspection) -> None:
    click.echo(f"{found.path}  {found.bytes / 1e6:.2f} MB, {found.target} and later")
    if len(found.functions) > 1:
        click.echo(f"function {found.function} of {', '.join(found.functions)}")
    for kind, features in (("input", found.inputs), ("output", found.outputs)):
        for feature in features:
            click.echo(f"{kind:<7} {feature}")


def _print_operations(found: Inspection) -> None:
    total, moving = found.operation_count, found.data_moving_count
    click.echo(f"\n{total} operations, {moving} only move data ({moving / max(total, 1):.0%})")
    click.echo(", ".join(f"{name} {count}" for name, count in found.operations.items()))


def _print_weights(found: Inspection, each: bool) -> None:
    if not found.weights:
        click.echo("\nno weights")
        return
    click.echo("")
    print_table(
        ("format", ">weights", ">values", ">bytes"),
        (
            (name, count, short_number(size), f"{total:,}")
            for name, (count, size, total) in found.formats().items()
        ),
    )
    if each:
        click.echo("")
        rows = ((w.name, list(w.shape), w.format, f"{w.bytes:,}") for w in found.weights)
        print_table(("weight", "shape", "format", ">bytes"), rows)


def _print_origin(found: Inspection) -> None:
    click.echo("")
    for key, value in found.metadata.items():
        text = " ".join(value.split())
        click.echo(f"{key}: {text if len(text) <= _LONG else text[:_LONG] + ' ...'}")


def _print_findings(found: Inspection) -> None:
    click.echo("\nNeural Engine lint" + ("" if found.findings else ": nothing found"))
    for finding in found.findings:
        click.echo(
            f"{finding.severity:<7}  {finding.rule} (x{finding.count}): {finding.advice}"
        )
        click.echo(f"         {'; '.join(finding.examples)}  [{finding.source}]")
