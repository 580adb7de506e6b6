"""``ondevice encode``: embeddings of a folder, whatever its size."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from ..errors import ImageError
from ._images import SKIPS, Skipped, files, max_level_option
from ._output import Progress, is_given, json_option, print_json
from ._vision import DEFAULT_MODEL as DEFAULT_VLM
from .classify import DEFAULT_MODEL


@click.command("encode", epilog=SKIPS)
@click.argument("sources", metavar="FOLDER|GLOB|FILE.txt|-|IMAGE...", nargs=-1, required=True)
@click.option(
    "--model",
    help=f"Model name, name.tag or saved folder.  [default: {DEFAULT_MODEL}; with --tokens "
    f"{DEFAULT_VLM}]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write: .safetensors, .npz or .parquet.",
)
@click.option(
    "--batch-size",
    default=16,
    show_default=True,
    type=click.IntRange(min=1),
    help="Images that the model takes at a time.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Threads that decode images.  [default: one for each core]",
)
@click.option(
    "--normalize/--no-normalize",
    default=True,
    show_default=True,
    help="Scale each row to length 1.",
)
@click.option(
    "--tokens", is_flag=True, help="Write all tokens of each image, as a FastVLM reads them."
)
@click.option(
    "--size",
    type=int,
    help="With --tokens: side of the image in pixels; gives (size / 64)² tokens.  "
    "[default: 1024]",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@max_level_option
@json_option
@click.pass_context
def encode_command(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    model: str | None,
    tokens: bool,
    size: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the embedding of each image to one file.

    A folder means the images below it, except hidden ones and those in linked folders; a .txt
    file and - (standard input) have one path on each line. Rows are in the order given, within
    a folder or pattern in the order of the paths' bytes. After an interruption of any kind, the
    same command goes on where it stopped, and the file has the same bytes; on another kind of
    processor, the same values to rounding.

    `mlx.launch -n 4 -- ondevice encode ...` shares the work among processes or machines.
    """
    if size is not None and not tokens:
        raise click.UsageError("--size goes with --tokens: an embedding has the model's own.")
    for option, name in OF_EMBEDDINGS.items() if tokens else ():
        if is_given(ctx, name):
            raise click.UsageError(f"{option} does not go with --tokens.")
    skipped = Skipped()
    if tokens:
        total = _encode_tokens(sources, model or DEFAULT_VLM, size, as_json, skipped, options)
    else:
        total = _encode(sources, model or DEFAULT_MODEL, as_json, skipped, options)
    ctx.exit(skipped.status(total))


OF_EMBEDDINGS = {
    "--batch-size": "batch_size",
    "--workers": "workers",
    "--normalize or --no-normalize": "normalize",
}


def _encode(
    sources: tuple[str, ...],
    model: str,
    as_json: bool,
    skipped: Skipped,
    options: dict[str, Any],
) -> int:
    """Encode this rank's share; how many files there are, 0 where rank 0 says so."""
    import mlx.core as mx

    from ..image.files import expand
    from ..tasks.embeddings.encode import encode
    from ..tasks.load import load

    group = mx.distributed.init()
    start = time.monotonic()
    shown = sys.stderr.isatty() and group.rank() == 0
    network = load(model)
    options |= {"on_error": skipped, "on_progress": Progress("encoding") if shown else None}
    try:
        done = encode(network, expand(sources), group=group, **options)
    except ImageError:  # no image at all: each has its reason
        skipped.check(len(skipped.found))
        raise
    if group.rank():
        return 0
    facts = {"out": str(done.out), "model": done.model, "images": done.images, "dim": done.dim}
    if as_json:
        seconds = round(time.monotonic() - start, 3)
        print_json(facts | {"seconds": seconds, "skipped": skipped.problems})
    else:
        click.echo(f"{done.out}: {done.images:,} x {done.dim}, {done.model}")
    return done.images + done.skipped


def _encode_tokens(
    sources: tuple[str, ...],
    model: str,
    size: int | None,
    as_json: bool,
    skipped: Skipped,
    options: dict[str, Any],
) -> int:
    """--tokens: (images, tokens, dim) of a FastVLM in a .safetensors file; how many files."""
    from ..image.files import expand
    from ..tasks.vlm import Vision, load_vision, write_tokens

    out, force = options["out"], options["force"]
    vision = Vision(size=size) if size is not None else Vision()
    paths = files(expand(sources), options["max_level"])
    tower = load_vision(model)
    try:
        images = write_tokens(tower, paths, out, vision=vision, force=force, on_error=skipped)
    except ImageError:
        skipped.check(len(paths))
        raise
    dim = tower.projector.linear_2.bias.size
    facts = {"out": str(out), "model": model, "images": images, "tokens": vision.count}
    if as_json:
        print_json(facts | {"dim": dim, "skipped": skipped.problems})
    else:
        click.echo(f"{out}: {images:,} x {vision.count} tokens x {dim}")
    return len(paths)
