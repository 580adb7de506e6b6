"""``ondevice import``: a checkpoint in another format becomes a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._output import json_option, print_json


@click.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="What it is: a name, or name.tag.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder to write."
)
@click.option("--num-classes", type=click.IntRange(min=0), help="If not the model's own.")
@click.option("--entry", help="Which weights, if CHECKPOINT has several, such as model_ema.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the numbers in the new file.",
)
@click.option("--force", is_flag=True, help="Replace the folder if it exists.")
@json_option
def import_command(
    checkpoint: Path,
    model: str,
    out: Path,
    num_classes: int | None,
    entry: str | None,
    precision: str,
    force: bool,
    as_json: bool,
) -> None:
    """Read CHECKPOINT, a .safetensors, .pth or .pt file, and save it as a folder.

    The folder is then a MODEL for the other commands. No code in CHECKPOINT is run.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from converters.import_weights import import_weights

    overrides: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    dtype = mx.float16 if precision == "float16" else mx.float32
    network = import_weights(
        checkpoint, model, out, entry=entry, dtype=dtype, force=force, **overrides
    )
    facts = {
        "model": network.info.name,
        "out": str(out),
        "arrays": len(tree_flatten(network.parameters())),
        "bytes": sum(path.stat().st_size for path in out.iterdir()),
        "license": network.info.license,
    }
    if as_json:
        print_json(facts)
    else:
        click.echo(
            f"{facts['model']}: {facts['arrays']} arrays, {facts['bytes']} bytes in {out}"
        )
