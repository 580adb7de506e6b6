"""``ondevice import``: turn a checkpoint of another format into a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ..config import CropMode, Interpolation
from ._numbers import FloatRange
from ._output import json_option, print_json

if TYPE_CHECKING:
    import mlx.nn as nn


@click.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="",
    help="Model name or name.tag; not needed where timm's config.json is beside CHECKPOINT.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--num-classes",
    type=click.IntRange(min=0),
    help="Number of classes, if not the model's own.",
)
@click.option(
    "--img-size",
    type=click.IntRange(min=1),
    help="Side in pixels for which the network was built, where its weights depend on that.",
)
@click.option("--labels", help="File with the name of a class on each line, or imagenet1k.")
@click.option(
    "--mean", metavar="R,G,B", help="Mean of each channel, of pixel values from 0 to 1."
)
@click.option(
    "--std",
    metavar="R,G,B",
    help="Standard deviation of each channel, of pixel values from 0 to 1.",
)
@click.option("--size", type=click.IntRange(min=1), help="Side of the input in pixels.")
@click.option("--crop", type=click.Choice(get_args(CropMode)), help="timm's crop mode.")
@click.option("--crop-pct", type=FloatRange(0, 1, min_open=True), help="timm's crop_pct.")
@click.option(
    "--interpolation",
    type=click.Choice(get_args(Interpolation)),
    help="Filter that resizes images.",
)
@click.option(
    "--entry",
    help="Which of several sets of weights to take: its name, such as model_ema, or the "
    "beginning of its names.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Data type of the weights in the new file.",
)
@click.option("--force", is_flag=True, help="Replace the folder if it exists.")
@json_option
def import_command(
    checkpoint: Path,
    model: str,
    out: Path,
    labels: str | None,
    precision: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn CHECKPOINT, a .safetensors, .pth, .pt, .bin or .ckpt file, into a saved model.

    Other commands take its folder as a MODEL. No code in CHECKPOINT is run. It may also be a
    folder that timm saved. If timm's config.json is beside the weights, preprocessing, classes
    and labels are as it says, unless an option here says otherwise.
    """
    import mlx.core as mx

    from ..config.labels import read_labels
    from ..tasks.import_weights import import_weights

    config = {name: options.pop(name) for name in ("num_classes", "img_size")}
    network = import_weights(
        checkpoint,
        model,
        out,
        entry=options.pop("entry"),
        dtype=getattr(mx, precision),
        force=options.pop("force"),
        preprocess=_preprocess(**options),
        labels=None if labels is None else read_labels(labels),
        **{name: value for name, value in config.items() if value is not None},
    )
    facts = _facts(network, out)
    if as_json:
        print_json(facts)
    else:
        click.echo("{model}: {arrays} arrays, {bytes} bytes in {out}".format(**facts))


def _facts(network: nn.Module, out: Path) -> dict[str, Any]:
    """What was written."""
    from mlx.utils import tree_flatten

    from ..weights.output import folder_bytes

    return {
        "model": network.info.name,
        "out": str(out),
        "arrays": len(tree_flatten(network.parameters())),
        "bytes": folder_bytes(out),
        "license": network.info.license,
    }


def _preprocess(crop: str | None, **options: Any) -> dict[str, Any]:
    """The options that are given, as fields of ``Preprocess``. Raises UsageError."""
    given = {k: v for k, v in {"crop_mode": crop, **options}.items() if v is not None}
    for name in given.keys() & {"mean", "std"}:
        given[name] = _channels(name, given[name])
    return given


def _channels(name: str, text: str) -> tuple[float, ...]:
    """Three values, or one for all channels. Raises UsageError."""
    try:
        values = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise click.UsageError(f"--{name} is {text!r}, expected R,G,B such as 0.5,0.5,0.5.")
    return values if len(values) == 3 else values * 3
