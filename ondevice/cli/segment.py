"""``ondevice segment``: what each pixel of an image belongs to."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import click

from ..signature.coco import categories, mask_annotations
from ._dense import EPILOG, Job, dense_options, image

if TYPE_CHECKING:
    from ..tasks.dense import Result

SHOWN = 3  # classes in the table


@click.command("segment", epilog=EPILOG)
@dense_options
@click.pass_context
def segment_command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Name the class of every pixel of each IMAGE.

    --out draws the classes in colours over it; --json has them in COCO's form, a run-length
    encoded mask for each class of an image.
    """
    from ..tasks.draw import draw_mask

    job = Job("mask", **options)
    classes = job.model.info.config.num_classes
    named = categories(job.model.info.labels, classes)
    number = count(1)

    def row(path: str, result: Result) -> dict[str, Any]:
        height, width = result.found.shape
        size = {"id": result.position, "width": width, "height": height}
        found = mask_annotations(result.found, result.position, number)
        return size | {"annotations": found}

    found = job.run(row, lambda result: draw_mask(result.photo, result.found, classes))
    facts = {
        "model": job.model.info.name,
        "images": [image(r) for r in found],
        "categories": named,
        "annotations": [a for r in found for a in r["annotations"]],
    }

    def cells(row: dict[str, Any]) -> tuple[object, ...]:
        ranked = sorted(row["annotations"], key=lambda a: -a["area"])[:SHOWN]
        whole = row["width"] * row["height"]
        shares = (f"{named[a['category_id']]['name']} {a['area'] / whole:.0%}" for a in ranked)
        return len(row["annotations"]), ", ".join(shares)

    job.finish(ctx, found, (">classes", "largest"), cells, facts if as_json else None)
