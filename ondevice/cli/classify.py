"""``ondevice classify``: what is in an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from ..image.files import expand
from ._images import SKIPS, Skipped, files, max_level_option
from ._output import json_option, print_json, print_table, progress

DEFAULT_MODEL = "shvit_nano.cifar10"


@click.command("classify", epilog=SKIPS)
@click.argument("sources", metavar="IMAGE|FOLDER...", nargs=-1, required=True)
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Model name, name.tag or saved folder.",
)
@click.option(
    "--top-k",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of classes printed for each image.",
)
@max_level_option
@json_option
@click.pass_context
def classify_command(
    ctx: click.Context,
    sources: tuple[str, ...],
    model: str,
    top_k: int,
    max_level: float | None,
    as_json: bool,
) -> None:
    """Print the most likely classes of each IMAGE, or of those in each FOLDER."""
    from ..nn.fuse import fuse
    from ..tasks.classify import classify
    from ..tasks.load import load

    images = list(expand(sources))
    network = fuse(load(model))
    skipped = Skipped()
    opened = progress(files(images, max_level), "classifying", len(images))
    results = classify(network, opened, top_k=top_k, on_error=skipped)
    skipped.check(len(images))
    found: list[dict[str, Any]] = [
        {"image": path, "predictions": [asdict(p) for p in predictions]}
        for path, predictions in zip(skipped.used(images), results, strict=True)
    ]
    if as_json:
        facts = {"model": network.info.name, "results": found}
        print_json(facts | {"skipped": skipped.problems})
    else:
        print_table(("image", ">score", "label"), rows(found))
    ctx.exit(skipped.status(len(images)))


def rows(found: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """A table of each image's predictions, with the image's name in the first row."""
    for result in found:
        name = click.format_filename(result["image"])
        for prediction in result["predictions"]:
            yield name, f"{prediction['score']:.1%}", prediction["label"]
            name = ""
