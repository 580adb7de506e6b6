"""``ondevice export``: a model as a Core ML package."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError, ImageError
from ..image.files import expand
from ._images import SKIPS, Skipped, files, max_level_option, spread
from ._output import is_given, json_option, print_json, print_table

TARGETS = ("iOS16", "iOS17", "iOS18")
PRECISIONS = ("float16", "float32")
ATTENTION = ("matmul", "per-head", "fused")
GELU = ("exact", "tanh")
INPUTS = ("image", "array")
OUTPUTS = {
    "embed": "embedding",
    "features": "features",
    "tokens": "tokens",
    "image_features": "image_features",
    "projected": "projected",
    "logits": "logits",
}


@click.command("export", epilog=f"Of --calibrate: {SKIPS}")
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), help="Default: MODEL.mlpackage.")
@click.option("--target", type=click.Choice(TARGETS), default="iOS17", show_default=True)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="float16", show_default=True
)
@click.option("--attention", type=click.Choice(ATTENTION), default="matmul", show_default=True)
@click.option("--gelu", type=click.Choice(GELU), default="exact", show_default=True)
@click.option(
    "--input",
    type=click.Choice(INPUTS),
    show_default="image",
    help="As a picture, or a float32 array, normalized outside, as Apple's FastVLM app has it.",
)
@click.option(
    "--size",
    type=click.IntRange(min=1),
    multiple=True,
    help="Input size in pixels; give it again for several functions in one package (iOS18).",
)
@click.option(
    "--tower", type=click.Choice(["image", "text"]), help="Which encoder of a CLIP.  [image]"
)
@click.option(
    "--logits", is_flag=True, help="Give class scores and labels: a classifier's default."
)
@click.option("--embed", is_flag=True, help="Give the pooled embedding.")
@click.option("--features", is_flag=True, help="Give the map of every stage.")
@click.option("--tokens", is_flag=True, help="Give the last map as tokens, for a VLM.")
@click.option("--image-features", is_flag=True, help="As --tokens, called as Apple's app does.")
@click.option("--projected", is_flag=True, help="Give a FastVLM's tokens after its projector.")
@click.option("--recipe", help="Compress: a preset, or a YAML or JSON file of rules.")
@click.option(
    "--calibrate",
    help="A folder, pattern or .txt list of images like those to come: for recipes, and half "
    "precision's ranges.",
)
@max_level_option
@click.option("--budget", help="Size of the package, such as 2.5MB: a format for each layer.")
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 100, min_open=True),
    help="Percent of the --calibrate pictures that keep their class: a format for each layer.",
)
@click.option(
    "--pareto",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what other sizes cost to this file: a plot (.svg) or .json.",
)
@click.option("--limit", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--table", is_flag=True, help="Say what became of every weight.")
@click.option("--force", is_flag=True, help="Replace an existing package.")
@json_option
@click.pass_context
def export_command(
    ctx: click.Context,
    /,
    model: str,
    out: Path | None,
    size: tuple[int, ...],
    tower: str | None,
    recipe: str | None,
    calibrate: str | None,
    max_level: float | None,
    budget: str | None,
    min_agreement: float | None,
    pareto: Path | None,
    limit: int,
    table: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write MODEL (a name, name.tag or saved folder) to a Core ML package.

    Of a FastVLM (a folder, or a repository such as apple/FastVLM-0.5B) it is the encoder.
    Normalization, labels and the preprocessing contract are inside. Several outputs may be
    asked for at once. Of --calibrate at most --limit images are used, spread evenly.
    """
    from converters.export import export

    if tower == "text" and calibrate:
        raise click.UsageError("--calibrate has pictures, which a text encoder cannot take.")
    for name in () if calibrate else ("max_level", "limit"):
        if is_given(ctx, name):
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option} goes with --calibrate: it is for its images.")
    if pareto and not (budget or min_agreement):
        raise ConfigError("--pareto shows a search: give --budget or --min-agreement")
    outputs = tuple(name for flag, name in OUTPUTS.items() if options.pop(flag))
    network = _network(model, tower)
    skipped = Skipped()
    chosen = spread(list(expand([calibrate])), limit) if calibrate else []
    samples = _usable(files(chosen, max_level), network, size, skipped)
    accounts: list[Any] = []
    start = time.perf_counter()
    path = export(
        network,
        out or f"{network.info.name}.mlpackage",
        size=size or None,
        outputs=outputs or (None if tower == "text" else _usual_outputs(network)),
        recipe=recipe or "",
        calibration=samples,
        budget=_bytes(budget) if budget else 0,
        min_agreement=(min_agreement or 0) / 100,
        account=accounts.append,
        front=pareto is not None,
        **options,
    )
    report = _summary(path) | {"seconds": round(time.perf_counter() - start, 2)}
    if pareto:
        accounts[0].front.write(pareto)
    report |= {key: value for a in accounts for key, value in a.summary().items()}
    if as_json:
        weights = [asdict(row) for a in accounts for row in a.rows]
        report |= {"skipped": skipped.problems}
        print_json(report | ({"table": weights} if table else {}))
    else:
        _print_report(report, accounts, table=table, front=pareto is not None)
    ctx.exit(skipped.status(len(chosen)))


def _usable(
    images: Sequence[Any], network: Any, sizes: Sequence[int], skipped: Skipped
) -> list[Any]:
    """The images that can be read: as levels where they are needed in one size only."""
    from ..image.preprocess import resize_and_crop

    found = []
    for position, image in enumerate(images):
        spec = network.info.preprocess
        spec = replace(spec, size=sizes[0]) if sizes else spec
        try:
            levels = resize_and_crop(image, spec)
        except ImageError as error:
            skipped(position, error)
        else:
            found.append(levels if len(sizes) < 2 else image)
    skipped.check(len(images))
    return found


def _network(name: str, tower: str | None) -> Any:
    """What ``name`` stands for: of a FastVLM its encoder, of a CLIP the one asked for."""
    from ..tasks.vlm.load import is_vlm, load_vision
    from ..weights.folder import create_model

    if is_vlm(name):
        network = load_vision(name).exportable()
    else:
        network = create_model(name, pretrained=True)
    return _encoder(network, name, tower) if tower else network


def _usual_outputs(network: Any) -> tuple[str, ...]:
    """What a package gives if nothing is asked for."""
    from ..registry import model_spec
    from ..tasks.vlm.checkpoint import ENCODER

    if network.info.model == ENCODER:
        return ("image_features",)
    return ("embedding",) if model_spec(network.info.model).text else ("logits",)


def _print_report(
    report: dict[str, Any], accounts: Sequence[Any], *, table: bool, front: bool
) -> None:
    print_table(("package", report["package"]), list(report.items())[1:])
    for account in accounts if table else ():
        click.echo()
        print_account(account.rows)
    for account in accounts if front else ():
        click.echo()
        print_table((">MB", ">agreement", ">cost", "formats"), account.front.rows())


def _encoder(network: Any, name: str, tower: str) -> Any:
    """One of the encoders of a CLIP. Raises ConfigError if ``name`` is none."""
    from ..tasks.clip.load import load_text, text_of

    text_of(network.info.name)
    return load_text(name) if tower == "text" else network


def print_account(rows: Iterable[Any]) -> None:
    """A line a weight."""
    print_table(
        ("weight", "shape", "format", ">bits", ">SNR dB", "note"),
        (
            (r.path, "x".join(map(str, r.shape)), r.format, f"{r.bits:.2f}", r.snr_db, r.note)
            for r in rows
        ),
    )


def _bytes(text: str) -> int:
    """A size such as 2.5MB, 800kB or 900000. Raises ConfigError."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kMG]?)B?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"a budget is a size such as 2.5MB; given {text!r}")
    return round(float(match[1]) * 1000 ** " KMG".index(match[2].upper() or " "))


def _summary(path: Path) -> dict[str, Any]:
    """What was written, as read back from disk."""
    from converters.coreml.loaded import load_package
    from converters.verification.verify import folder_bytes

    package = load_package(path)
    return {
        "package": str(path),
        "bytes": folder_bytes(path),
        "operations": len(package.operations),
        "inputs": ", ".join(package.inputs),
        "outputs": ", ".join(package.outputs),
        "license": package.metadata.get("license", "unknown"),
    }
