"""``ondevice encode``: embeddings of a folder, whatever its size."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import ImageError
from ._images import SKIPS, Skipped, files, max_level_option
from ._output import Progress, json_option, print_json
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
    sources: tuple[str, ...],
    model: str | None,
    out: Path,
    batch_size: int,
    workers: int | None,
    normalize: bool,
    tokens: bool,
    size: int | None,
    force: bool,
    max_level: float | None,
    as_json: bool,
) -> None:
    """Write the embedding of each image to one file.

    A folder means the images below it, except hidden ones and those in linked folders; a .txt
    file and - (standard input) have one path on each line. Rows are in the order given, within
    a folder or pattern in the order of the paths' bytes. After an interruption of any kind, the
    same command goes on where it stopped, and the file has the same bytes; on another kind of
    processor, the same values to rounding.

    `mlx.launch -n 4 -- ondevice encode ...` shares the work among processes or machines.
    """
    import mlx.core as mx

    from ..image.files import expand
    from ..tasks.embeddings.encode import encode
    from ..weights.folder import create_model

    skipped = Skipped()
    if size is not None and not tokens:
        raise click.UsageError("--size goes with --tokens: an embedding has the model's own.")
    if tokens:
        paths = files(expand(sources), max_level)
        _encode_tokens(paths, model or DEFAULT_VLM, size, out, force, as_json, skipped)
        ctx.exit(skipped.status(len(paths)))
    group = mx.distributed.init()
    start = time.monotonic()
    shown = sys.stderr.isatty() and group.rank() == 0
    network = create_model(model or DEFAULT_MODEL, pretrained=True)
    try:
        done = encode(
            network,
            expand(sources),
            out,
            batch_size=batch_size,
            workers=workers,
            normalize=normalize,
            max_level=max_level,
            force=force,
            on_error=skipped,
            on_progress=Progress("encoding") if shown else None,
            group=group,
        )
    except ImageError:  # no image at all: each has its reason
        skipped.check(len(skipped.found))
        raise
    if group.rank():
        return
    facts = {"out": str(done.out), "model": done.model, "images": done.images, "dim": done.dim}
    if as_json:
        print_json(
            facts | {"seconds": round(time.monotonic() - start, 3), "skipped": skipped.problems}
        )
    else:
        click.echo(f"{done.out}: {done.images:,} x {done.dim}, {done.model}")
    ctx.exit(skipped.status(done.images + done.skipped))


def _encode_tokens(
    paths: Sequence[str],
    model: str,
    size: int | None,
    out: Path,
    force: bool,
    as_json: bool,
    skipped: Skipped,
) -> None:
    """--tokens: (images, tokens, dim) of a FastVLM in a .safetensors file."""
    from ..tasks.vlm import Vision, load_vision, write_tokens

    vision = Vision(size=size) if size is not None else Vision()
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
