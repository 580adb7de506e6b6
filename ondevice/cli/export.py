"""``ondevice export``: a model as a Core ML package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ._output import json_option, print_json, print_table

TARGETS = ("iOS16", "iOS17", "iOS18")
PRECISIONS = ("float16", "float32")
OUTPUTS = {
    "embed": "embedding",
    "features": "features",
    "tokens": "tokens",
    "image_features": "image_features",
    "projected": "projected",
    "logits": "logits",
}


@click.command("export")
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), help="Default: MODEL.mlpackage.")
@click.option("--target", type=click.Choice(TARGETS), default="iOS17", show_default=True)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="float16", show_default=True
)
@click.option("--size", type=click.IntRange(min=1), help="Input size in pixels.")
@click.option("--logits", is_flag=True, help="Give class scores and labels: the default.")
@click.option("--embed", is_flag=True, help="Give the pooled embedding.")
@click.option("--features", is_flag=True, help="Give the map of every stage.")
@click.option("--tokens", is_flag=True, help="Give the last map as tokens, for a VLM.")
@click.option("--image-features", is_flag=True, help="As --tokens, called as Apple's app does.")
@click.option("--projected", is_flag=True, help="Give a FastVLM's tokens after its projector.")
@click.option("--force", is_flag=True, help="Replace an existing package.")
@json_option
def export_command(
    model: str,
    out: Path | None,
    target: str,
    precision: str,
    size: int | None,
    force: bool,
    as_json: bool,
    **wanted: bool,
) -> None:
    """Write MODEL (a name, name.tag or saved folder) to a Core ML package.

    Of a FastVLM (a folder, or a repository such as apple/FastVLM-0.5B) it is the encoder.
    Normalization, labels and the preprocessing contract are inside. Several outputs may be
    asked for at once.
    """
    from converters.export import export

    from ..vlm.load import is_vlm, load_encoder
    from ..weights import create_model

    network = load_encoder(model) if is_vlm(model) else create_model(model, pretrained=True)
    outputs = tuple(name for flag, name in OUTPUTS.items() if wanted[flag])
    path = out or Path(f"{network.info.name}.mlpackage")
    start = time.perf_counter()
    export(
        network,
        path,
        target=target,
        precision=precision,
        size=size,
        outputs=outputs or ("logits",),
        force=force,
    )
    report = _summary(path) | {"seconds": round(time.perf_counter() - start, 2)}
    if as_json:
        print_json(report)
    else:
        print_table(("package", report["package"]), list(report.items())[1:])


def _summary(path: Path) -> dict[str, Any]:
    """What was written, as read back from disk."""
    from converters.coreml.loaded import load_package
    from converters.verify import folder_bytes

    package = load_package(path)
    return {
        "package": str(path),
        "bytes": folder_bytes(path),
        "operations": len(package.operations),
        "inputs": ", ".join(package.inputs),
        "outputs": ", ".join(package.outputs),
        "license": package.metadata.get("license", "unknown"),
    }
