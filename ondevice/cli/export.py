"""``ondevice export``: a model as a package."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError, ImageError
from ..image.files import expand
from ..weights.output import check_free, replacing
from ._images import SKIPS, Skipped, files, max_level_option, spread
from ._numbers import FloatRange
from ._output import is_given, json_option, print_json, print_table

TARGETS = ("iOS16", "iOS17", "iOS18")
PRECISIONS = ("float16", "float32")
ATTENTION = ("matmul", "per-head", "fused")
GELU = ("exact", "tanh")
OF_ONE = ("size", "input", "calibrate", "budget", "min_agreement")  # what several models refuse
INPUTS = ("image", "array")
PLOTS = (".svg", ".json")  # what --pareto writes
SETTINGS = ("target", "precision", "attention", "gelu")  # a back end has them, or not


@click.command("export", epilog=f"Of --calibrate: {SKIPS}")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A .mlpackage (Core ML) or .aimodel (Core AI, extra coreai); give it again for both "
    "from one trace. Default: MODEL.mlpackage.",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="The oldest system that runs it; Core ML only.  [iOS17]",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Data type of weights and computed values.  [float16]",
)
@click.option(
    "--attention",
    type=click.Choice(ATTENTION),
    help="The form of attention; which is fastest depends on the chip.  [matmul]",
)
@click.option("--gelu", type=click.Choice(GELU), help="The form of GELU.  [exact]")
@click.option(
    "--input",
    type=click.Choice(INPUTS),
    help="Take an image, or a float32 array that was normalized before, as Apple's FastVLM app "
    "has it.  [image]",
)
@click.option(
    "--size",
    type=click.IntRange(min=1),
    multiple=True,
    help="Input size in pixels; give it again for several functions in one package (iOS18, or "
    "Core AI).",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME",
    help="What comes out, such as logits, embedding, features or tokens: `ondevice show MODEL` "
    "has all names. Give it again for several.",
)
@click.option(
    "--recipe",
    help="Compress: a preset, or a YAML or JSON file of rules.  [none, "
    "or what the folder was trained for]",
)
@click.option(
    "--calibrate",
    help="A folder, pattern or .txt list of images like those to come: for recipes, and half "
    "precision's ranges.",
)
@max_level_option
@click.option("--budget", help="Size of the package, such as 2.5MB: a format for each layer.")
@click.option(
    "--min-agreement",
    type=FloatRange(0, 100, min_open=True),
    help="Percent of the --calibrate images that keep their class: a format for each layer.",
)
@click.option(
    "--pareto",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what other sizes cost to this file: a plot (.svg) or .json.",
)
@click.option("--limit", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--table", is_flag=True, help="Say how every weight was compressed.")
@click.option(
    "--force", is_flag=True, help="Replace an existing package, and what is at --pareto."
)
@json_option
@click.pass_context
def export_command(
    ctx: click.Context,
    /,
    models: tuple[str, ...],
    out: tuple[Path, ...],
    calibrate: str | None,
    max_level: float | None,
    pareto: Path | None,
    limit: int,
    table: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write MODEL (a name, name.tag or saved folder) to a package of the format of --out.

    Several MODELs become functions of one package, called as they are, that hold equal weights
    once: several tasks over one base (iOS18, or Core AI). Of a FastVLM (a folder, or a
    repository such as apple/FastVLM-0.5B) it is the encoder. Normalization, labels and the
    preprocessing contract are inside. Of --calibrate at most --limit images are used, spread
    evenly.
    """
    from ..tasks.load import load

    _check_options(ctx, models)
    if pareto:
        check_plot(pareto, force=options["force"])
    options |= _limits(options.pop("budget"), options.pop("min_agreement"))
    networks = {function_name(name): load(name) for name in models}
    if table:
        _check_table(networks.values(), options)
    first = next(iter(networks.values()))
    skipped = Skipped()
    chosen = spread(list(expand([calibrate])), limit) if calibrate else []
    accounts: list[Any] = []
    options |= {
        "calibration": _usable(files(chosen, max_level), first, options["size"], skipped),
        "account": accounts.append,
        "front": pareto is not None,
    }
    packages = _export(networks, out or (Path(f"{first.info.name}.mlpackage"),), options)
    if pareto:
        with replacing(pareto, force=options["force"]) as partial:
            accounts[0].front.write(partial)
    report = packages[0] if len(packages) == 1 else {"packages": packages}
    report |= {key: value for a in accounts for key, value in a.summary().items()}
    if as_json:
        print_json(report | {"skipped": skipped.problems} | _table(accounts, wanted=table))
    else:
        _print_report(report, accounts, table=table, front=pareto is not None)
    ctx.exit(skipped.status(len(chosen)))


def check_plot(path: Path, *, force: bool) -> None:
    """Raises ConfigError or OutputError for what --pareto cannot be written to."""
    if path.suffix not in PLOTS:
        raise ConfigError(f"{path} has to end with {' or '.join(PLOTS)}")
    check_free(path.absolute(), force=force)


def _check_table(networks: Iterable[Any], options: Mapping[str, Any]) -> None:
    """Raises ConfigError if no weight will be compressed, of which a table could say how."""
    asked = any(options[name] for name in ("recipe", "budget", "min_agreement"))
    own = [info.recipe for n in networks if (info := getattr(n, "info", None))]
    if options["recipe"] == "none" or not (asked or any(own)):
        raise ConfigError(
            "--table says how each weight was compressed: give --recipe, --budget or "
            "--min-agreement"
        )


def _table(accounts: Sequence[Any], *, wanted: bool) -> dict[str, Any]:
    """What became of every weight, if that is wanted."""
    return {"table": [asdict(row) for a in accounts for row in a.rows]} if wanted else {}


def _check_options(ctx: click.Context, models: Sequence[str]) -> None:
    """Raises UsageError or ConfigError for an option that goes with one that is not there."""
    for name in ("recipe", "calibrate", "budget"):
        if ctx.params[name] == "":  # as of a shell's variable that is not set
            raise click.UsageError(f"{_option(name)} is empty.")
    for name in () if is_given(ctx, "calibrate") else ("max_level", "limit"):
        if is_given(ctx, name):
            raise click.UsageError(f"{_option(name)} goes with --calibrate, for its images.")
    if is_given(ctx, "target") and ctx.params["out"] and not _has_core_ml(ctx.params["out"]):
        raise click.UsageError(
            "--target is of Core ML alone: of a --out that ends in .mlpackage."
        )
    if is_given(ctx, "pareto") and not any(map(ctx.params.get, ("budget", "min_agreement"))):
        raise ConfigError("--pareto shows a search: give --budget or --min-agreement")
    if len(models) == 1:
        return
    if given := [_option(name) for name in OF_ONE if is_given(ctx, name)]:
        raise click.UsageError(
            f"{', '.join(given)}: of one model only; {len(models)} are given. Export them one "
            "by one."
        )
    names = [function_name(name) for name in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"two models would be the function {', '.join(twice)}: rename one's folder"
        )
    if not is_given(ctx, "out"):
        raise click.UsageError("of several models, --out names the package")


def _has_core_ml(paths: Iterable[Path]) -> bool:
    return any(path.suffix == ".mlpackage" for path in paths)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def function_name(model: str) -> str:
    """What a model's function is called: its name, or its folder's, as Swift can have it."""
    name = re.sub(r"\W", "_", Path(model).resolve().name, flags=re.ASCII)
    return name if name.isidentifier() else f"_{name}"


def _limits(budget: str | None, min_agreement: float | None) -> dict[str, float]:
    """What a search has to keep to, in bytes and as a share of 1."""
    size = _bytes(budget) if budget else 0
    return {"budget": size, "min_agreement": (min_agreement or 0) / 100}


def _export(
    networks: Mapping[str, Any], out: Sequence[Path], options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Write the packages; what each is, with the seconds that it took: of several each its
    own, without the trace and all else that they share."""
    from converters.export import export, export_functions

    alone = [k for k in SETTINGS if options[k] is None]
    if len(networks) > 1:
        alone += ["input", "size", "budget", "min_agreement", "calibration", "front"]
    given = {k: v for k, v in options.items() if k not in alone and v != ()}
    own: dict[Path, float] = {}
    given |= {"also": out[1:], "timed": own.__setitem__}
    start = time.perf_counter()
    if len(networks) > 1:
        export_functions(networks, out[0], **given)
    else:
        (network,) = networks.values()
        export(network, out[0], **given)
    if len(out) == 1:
        own[out[0]] = time.perf_counter() - start
    return [_summary(path) | {"seconds": round(own[path], 2)} for path in out]


def _usable(
    images: Sequence[Any], network: Any, sizes: Sequence[int], skipped: Skipped
) -> list[Any]:
    """The images that can be read: as pixel values where they are needed in one size only.

    Raises ConfigError if the model takes no images.
    """
    signature = network.signature
    if images and not signature.images:
        raise ConfigError(
            f"--calibrate has images; {signature.model} takes {signature.listed()}"
        )
    found = []
    for position, image in enumerate(images):
        spec = signature.resized(sizes[0]) if sizes else signature
        try:
            (pixels,) = spec.read(image)
        except ImageError as error:
            skipped(position, error)
        else:
            found.append(pixels if len(sizes) < 2 else image)
    skipped.check(len(images))
    return found


def _print_report(
    report: dict[str, Any], accounts: Sequence[Any], *, table: bool, front: bool
) -> None:
    packages = report.get("packages", [report])
    shared = {k: v for k, v in report.items() if k != "packages"}
    if len(packages) == 1:
        print_table(("package", report["package"]), list(report.items())[1:])
    else:
        _print_beside(packages, shared)
    for account in accounts if table else ():
        click.echo()
        print_account(account.rows)
    for account in accounts if front else ():
        click.echo()
        print_table((">MB", ">agreement", ">cost", "formats"), account.front.rows())


def _print_beside(packages: Sequence[dict[str, Any]], shared: dict[str, Any]) -> None:
    """A line a package, then what they have in common."""
    print_table(
        ("package", ">bytes", ">operations", ">seconds", "outputs"),
        (
            (p["package"], f"{p['bytes']:,}", p["operations"], p["seconds"], p["outputs"])
            for p in packages
        ),
    )
    if shared:
        click.echo()
        print_table(("both", ""), list(shared.items()))


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
    from converters.backend import load_package

    package = load_package(path)
    return {
        "package": str(path),
        "bytes": package.size,
        "operations": len(package.operations),
        "inputs": ", ".join(package.inputs),
        "outputs": ", ".join(package.outputs),
        "license": package.metadata.get("license", "unknown"),
    }
