"""``ondevice import``: a checkpoint in another format becomes a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from ..config import CropMode, Interpolation
from ._output import json_option, print_json


@click.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="",
    help="What it is: a name, or name.tag, unless a config.json of timm's is beside it.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder to write."
)
@click.option("--num-classes", type=click.IntRange(min=0), help="If not the model's own.")
@click.option(
    "--img-size",
    type=click.IntRange(min=1),
    help="Pixels a side that the network was built for, where that changes it.",
)
@click.option("--labels", help="A file of the classes' names, one a line, or imagenet1k.")
@click.option("--mean", metavar="R,G,B", help="Taken off each channel of 0 to 1.")
@click.option("--std", metavar="R,G,B", help="What each channel is then divided by.")
@click.option("--size", type=click.IntRange(min=1), help="Pixels a side of the input.")
@click.option("--crop", type=click.Choice(get_args(CropMode)), help="Crop mode, as timm's.")
@click.option("--crop-pct", type=click.FloatRange(0, 1, min_open=True), help="As timm's.")
@click.option("--interpolation", type=click.Choice(get_args(Interpolation)))
@click.option(
    "--entry",
    help="Which weights, if CHECKPOINT has several, such as model_ema, or how names begin.",
)
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
    img_size: int | None,
    labels: str | None,
    entry: str | None,
    precision: str,
    force: bool,
    as_json: bool,
    **contract: Any,
) -> None:
    """Read CHECKPOINT, a .safetensors, .pth, .pt, .bin or .ckpt file, save it as a folder.

    The folder is then a MODEL for the other commands. No code in CHECKPOINT is run. It may be
    a folder of timm's; what a config.json of timm's beside it says of preprocessing, classes
    and labels is taken, and the options here have the last word.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from ondevice.tasks.import_weights import import_weights

    from ..config.labels import read_labels
    from ..weights.output import folder_bytes

    overrides = {"num_classes": num_classes, "img_size": img_size}
    network = import_weights(
        checkpoint,
        model,
        out,
        entry=entry,
        dtype=mx.float16 if precision == "float16" else mx.float32,
        force=force,
        preprocess=_preprocess(**contract),
        labels=None if labels is None else read_labels(labels),
        **{k: v for k, v in overrides.items() if v is not None},
    )
    facts = {
        "model": network.info.name,
        "out": str(out),
        "arrays": len(tree_flatten(network.parameters())),
        "bytes": folder_bytes(out),
        "license": network.info.license,
    }
    if as_json:
        print_json(facts)
    else:
        click.echo(
            f"{facts['model']}: {facts['arrays']} arrays, {facts['bytes']} bytes in {out}"
        )


def _preprocess(crop: str | None, **options: Any) -> dict[str, Any]:
    """The options that are given, as fields of ``Preprocess``. Raises UsageError."""
    given = {k: v for k, v in {"crop_mode": crop, **options}.items() if v is not None}
    for name in given.keys() & {"mean", "std"}:
        given[name] = _channels(name, given[name])
    return given


def _channels(name: str, text: str) -> tuple[float, ...]:
    """Three numbers, or one for all channels."""
    try:
        numbers = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3):
        raise click.UsageError(f"--{name} is {text!r}, expected R,G,B such as 0.5,0.5,0.5.")
    return numbers if len(numbers) == 3 else numbers * 3
