"""``ondevice classify``: what is in a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from ..errors import ImageError
from ._output import json_option, print_json, print_table, progress

DEFAULT_MODEL = "shvit_nano.cifar10"


@click.command("classify")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--model", default=DEFAULT_MODEL, show_default=True, help="Name, name.tag or saved folder."
)
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(min=1))
@json_option
@click.pass_context
def classify_command(
    ctx: click.Context, images: tuple[str, ...], model: str, top_k: int, as_json: bool
) -> None:
    """Print the likeliest classes of each IMAGE.

    Of several images those that can be used are classified, the others named on stderr; the
    exit status is then 2.
    """
    from ..fuse import fuse
    from ..tasks import classify
    from ..weights import create_model

    network = fuse(create_model(model, pretrained=True))
    problems: dict[int, ImageError] = {}
    pictures = progress(images, "classifying", len(images))
    results = classify(network, pictures, top_k=top_k, on_error=problems.__setitem__)
    good = [image for i, image in enumerate(images) if i not in problems]
    found: list[dict[str, Any]] = [
        {"image": path, "predictions": [asdict(p) for p in predictions]}
        for path, predictions in zip(good, results, strict=True)
    ]
    if as_json:
        print_json({"model": network.info.name, "results": found})
    elif found:
        print_table(("image", ">score", "label"), rows(found))
    for problem in problems.values():
        click.echo(f"error: {problem}", err=True)
    ctx.exit(2 if problems else 0)


def rows(found: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """The table of what was found in each picture, whose name is in its first row."""
    for result in found:
        name = click.format_filename(result["image"])
        for prediction in result["predictions"]:
            yield name, f"{prediction['score']:.1%}", prediction["label"]
            name = ""
