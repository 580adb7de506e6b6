"""``ondevice search``: the images of an index that are most similar to another or to a text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._images import files, max_level_option
from ._output import json_option, print_json, print_table

if TYPE_CHECKING:
    import mlx.core as mx

    from ..image.open import ImageLike
    from ..tasks.embeddings.index import Index


@click.command("search")
@click.argument("image", metavar="[QUERY_IMAGE]", required=False)
@click.option(
    "--text", help="Text to look for instead of an image, in an index that a CLIP made."
)
@click.option(
    "--index",
    "index_path",
    required=True,
    type=click.Path(path_type=Path),
    help="File that `ondevice encode` wrote.",
)
@click.option(
    "--model", help="Model name, name.tag or saved folder.  [default: what the index says]"
)
@click.option(
    "--top-k",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of images printed.",
)
@max_level_option
@json_option
def search_command(
    image: str | None,
    text: str | None,
    index_path: Path,
    model: str | None,
    top_k: int,
    max_level: float | None,
    as_json: bool,
) -> None:
    """Print the images of an index most similar to QUERY_IMAGE or --text, by cosine."""
    from ..tasks.embeddings.index import open_index
    from ..tasks.embeddings.search import search

    if (image is None) == (text is None):
        raise click.UsageError("Give an image or --text, and not both.")
    if text is not None and max_level is not None:
        raise click.UsageError("--max-level is for an image, not for --text.")
    index = open_index(index_path)
    (query_image,) = files([image or ""], max_level)
    query = _query(index, model or index.model, query_image, text)
    matches = search(index, query, top_k=top_k)
    if as_json:
        print_json({"model": index.model, "results": [asdict(match) for match in matches]})
    else:
        rows = ((f"{m.score:.4f}", click.format_filename(m.path)) for m in matches)
        print_table((">cosine", "path"), rows)


def _query(index: Index, model: str, image: ImageLike, text: str | None) -> mx.array:
    from ..tasks.clip import load_clip
    from ..tasks.embeddings.search import encode_query, encode_text
    from ..tasks.load import load

    if text is not None:
        return encode_text(index, load_clip(model), text)
    return encode_query(index, load(model), image)
