"""``ondevice depth``: how near everything in an image is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._dense import EPILOG, Job, dense_options

if TYPE_CHECKING:
    from ..tasks.dense import Result


@click.command("depth", epilog=EPILOG)
@dense_options
@click.pass_context
def depth_command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Estimate the depth of each IMAGE; larger values are nearer, unless the model says else.

    --out draws it, light where the values are large.
    """
    from ..tasks.draw import draw_depth

    job = Job("depth", **options)
    found = job.run(_row, lambda result: draw_depth(result.found))
    facts = {"model": job.model.info.name, "results": found} if as_json else None
    job.finish(ctx, found, (">min", ">max", "size"), _cells, facts)


def _row(path: str, result: Result) -> dict[str, Any]:
    low, high = float(result.found.min()), float(result.found.max())
    return {"min": low, "max": high, "shape": list(result.found.shape)}


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    height, width = row["shape"]
    return f"{row['min']:.4g}", f"{row['max']:.4g}", f"{width} x {height}"
