"""``ondevice app``: from a model to an Xcode project that runs it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..config import RESTRICTED
from ..errors import ConfigError
from ..weights.output import check_free
from ._output import json_option, print_json

if TYPE_CHECKING:
    from converters.program import Program


@click.command("app")
@click.argument("source", metavar="MODEL|PACKAGE")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder to write, new."
)
@click.option("--name", help="Of the app.  [the folder's]")
@click.option("--bundle-id", help="As Apple knows the app.  [com.example.NAME]")
@click.option(
    "--asset-pack",
    is_flag=True,
    help="Leave the model out of the app: write a Background Assets manifest instead, for the "
    "system to download it (iOS 26).",
)
@click.option("--force", is_flag=True, help="Replace an existing project.")
@json_option
def app_command(
    source: str,
    out: Path,
    name: str | None,
    bundle_id: str | None,
    asset_pack: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write an Xcode project that runs a model on an iPhone.

    MODEL is a name, name.tag or saved folder, which is exported as `ondevice export` does
    without options; a .mlpackage is taken as it is. The project has the package, its labels,
    a golden image with which the app checks itself, OnDeviceKit, a SwiftUI screen and
    QuickStart.swift, the one function to copy.
    """
    from converters.app.write import App, write_app
    from converters.backend import BACKENDS, load_package

    check_free(out.absolute(), force=force, marker="project.yml")
    app = App(name or out.absolute().name, bundle_id or "", asset_pack)
    app.project()  # an impossible name is said before any work
    with tempfile.TemporaryDirectory(prefix="ondevice-") as folder:
        is_package = Path(source).suffix in BACKENDS
        package = load_package(source if is_package else _export(source, folder))
        write_app(package, out, app, force=force)
        _report(package, app.name, out, as_json=as_json)


def _export(model: str, folder: str) -> Path:
    """The model as a package in ``folder``."""
    from converters.export import export

    from ..tasks.load import load

    network = load(model)
    if not len(network.signature.inputs) == len(network.signature.images) == 1:
        takes = network.signature.listed()
        raise ConfigError(f"{model} takes {takes}; an app is written for a model of one image")
    return export(network, Path(folder) / f"{network.info.name}.mlpackage", golden=False)


def _report(package: Program, name: str, out: Path, *, as_json: bool) -> None:
    licence = package.metadata.get("license", "unknown")
    facts = {
        "project": str(out / f"{name}.xcodeproj"),
        "model": package.metadata.get("ondevice.model", package.path.stem),
        "classes": len(package.labels),
        "bytes": package.size,
        "license": licence,
    }
    if as_json:
        print_json(facts)
    else:
        click.echo("{project}: {model}, {bytes} bytes, {license}".format(**facts))
        click.echo("Open it with Xcode 16 or newer, and run.", err=True)
    if licence in RESTRICTED:
        click.echo(f"warning: {licence} limits the use of these weights: read it", err=True)
