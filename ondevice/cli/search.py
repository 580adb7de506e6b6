"""``ondevice search``: the pictures of an index that are most like another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ._output import json_option, print_json, print_table


@click.command("search")
@click.argument("image", metavar="QUERY_IMAGE")
@click.option(
    "--index",
    "index_path",
    required=True,
    type=click.Path(path_type=Path),
    help="What `ondevice encode` wrote.",
)
@click.option("--model", help="Name, name.tag or saved folder; default: what the index says.")
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(min=1))
@json_option
def search_command(
    image: str, index_path: Path, model: str | None, top_k: int, as_json: bool
) -> None:
    """Print the pictures of an index that are most like QUERY_IMAGE, by cosine."""
    from ..index import open_index
    from ..search import encode_query, search
    from ..weights import create_model

    index = open_index(index_path)
    network = create_model(model or index.model, pretrained=True)
    matches = search(index, encode_query(index, network, image), top_k=top_k)
    if as_json:
        print_json({"model": index.model, "results": [asdict(match) for match in matches]})
    else:
        rows = ((f"{m.score:.4f}", click.format_filename(m.path)) for m in matches)
        print_table((">cosine", "path"), rows)
