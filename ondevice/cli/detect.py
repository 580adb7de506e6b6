"""``ondevice detect``: the objects in an image."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import click

from ..signature import THRESHOLD
from ..signature.coco import box_annotations, categories
from ._dense import EPILOG, Job, dense_options, image
from ._numbers import FloatRange

if TYPE_CHECKING:
    from ..tasks.dense import Result

SHOWN = 5  # objects in the table


@click.command("detect", epilog=EPILOG)
@dense_options
@click.option(
    "--threshold",
    type=FloatRange(0, 1, min_open=True),
    default=THRESHOLD,
    show_default=True,
    help="The least score of an object.",
)
@click.pass_context
def detect_command(
    ctx: click.Context, /, as_json: bool, threshold: float, **options: Any
) -> None:
    """Find the objects in each IMAGE, in the image's own pixels.

    --out draws boxes; --json has them in COCO's form.
    """
    from ..tasks.draw import draw_boxes

    job = Job("boxes", **options)
    info, number = job.model.info, count(1)

    def row(path: str, result: Result) -> dict[str, Any]:
        width, height = result.photo.size
        size = {"id": result.position, "width": width, "height": height}
        objects = [(d.label, d.score) for d in result.found]
        found = box_annotations(result.found, result.position, number)
        return size | {"objects": objects, "annotations": found}

    found = job.run(
        row, lambda result: draw_boxes(result.photo, result.found), threshold=threshold
    )
    facts = {
        "model": info.name,
        "images": [image(r) for r in found],
        "categories": categories(info.labels, info.config.num_classes),
        "annotations": [a for r in found for a in r["annotations"]],
    }
    job.finish(ctx, found, (">objects", "surest"), _cells, facts if as_json else None)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    best = (f"{label} {score:.0%}" for label, score in row["objects"][:SHOWN])
    return len(row["objects"]), ", ".join(best)
