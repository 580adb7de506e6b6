"""``ondevice classify``: what is in a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..errors import ImageError
from ._output import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from PIL.Image import Image

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
    good: list[str] = []
    problems: list[str] = []
    pictures = _readable(progress(images, "classifying", len(images)), good, problems)
    results = classify(network, pictures, top_k=top_k)
    found: list[dict[str, Any]] = [
        {"image": path, "predictions": [asdict(p) for p in predictions]}
        for path, predictions in zip(good, results, strict=True)
    ]
    if as_json:
        print_json({"model": network.info.name, "results": found})
    elif found:
        print_table(("image", ">score", "label"), _rows(found))
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    ctx.exit(2 if problems else 0)


def _readable(paths: Iterable[str], good: list[str], problems: list[str]) -> Iterator[Image]:
    """The pictures that can be used; their names go to ``good``, the rest to ``problems``."""
    from ..images import open_image

    for path in paths:
        try:
            image = open_image(path)
        except ImageError as error:
            problems.append(str(error))
        else:
            good.append(path)
            yield image


def _rows(found: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    for result in found:
        name = click.format_filename(result["image"])
        for prediction in result["predictions"]:
            yield name, f"{prediction['score']:.1%}", prediction["label"]
            name = ""
