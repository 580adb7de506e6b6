"""``ondevice zeroshot``: which of your own labels fits an image."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from ._images import SKIPS, Skipped, files, max_level_option
from ._output import json_option, print_json, print_table, progress
from .classify import rows

DEFAULT_MODEL = "mobileclip_s0"
TEMPLATE = "a photo of a {}."


@click.command("zeroshot", epilog=SKIPS)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--labels", help="Labels, with commas between them: cat,dog.")
@click.option(
    "--labels-file", type=click.Path(path_type=Path), help="File with a label on each line."
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    help="Text for a label, which replaces {} in it; the vectors of several are averaged.  "
    f"[default: {TEMPLATE}]",
)
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="CLIP's model name, name.tag or saved folder.",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, if not the model's own.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Folder in which to keep the labels' vectors.",
)
@click.option(
    "--top-k",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of labels printed for each image.",
)
@max_level_option
@json_option
@click.pass_context
def zeroshot_command(
    ctx: click.Context,
    images: tuple[str, ...],
    labels: str | None,
    labels_file: Path | None,
    templates: tuple[str, ...],
    model: str,
    tokenizer: Path | None,
    cache: Path | None,
    top_k: int,
    max_level: float | None,
    as_json: bool,
) -> None:
    """Print which of the labels fit each IMAGE best.

    Scores of an image add up to 1; a SigLIP's do not: each says how likely that label is by
    itself, and one label will do.
    """
    from ..tasks.clip import load_clip
    from ..tasks.clip.model import check_labels, check_templates

    names = check_labels(_labels(labels, labels_file))
    texts = check_templates(templates or (TEMPLATE,))
    clip = load_clip(model, tokenizer=tokenizer, cache=cache)
    skipped = Skipped()
    opened = progress(files(images, max_level), "classifying", len(images))
    results = clip.zero_shot(opened, names, texts, top_k=top_k, on_error=skipped)
    skipped.check(len(images))
    found: list[dict[str, Any]] = [
        {"image": path, "predictions": [asdict(p) for p in predictions]}
        for path, predictions in zip(skipped.used(images), results, strict=True)
    ]
    if as_json:
        scores = "sigmoid" if clip.sigmoid else "softmax"
        facts = {"model": clip.info.name, "templates": texts, "scores": scores}
        print_json(facts | {"results": found, "skipped": skipped.problems})
    else:
        print_table(("image", ">score", "label"), rows(found))
    ctx.exit(skipped.status(len(images)))


def _labels(text: str | None, path: Path | None) -> list[str]:
    """The labels of either option. Raises UsageError unless one of the two is given."""
    if (text is None) == (path is None):
        raise click.UsageError("Give the labels with --labels or with --labels-file.")
    return text.split(",") if text is not None else read_labels(Path(path or ""))


def read_labels(path: Path) -> list[str]:
    """A label on each line; empty lines are no labels. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text: byte {error.start}") from error
    found = [line for line in text.splitlines() if line.strip()]
    if not found:
        raise ConfigError(f"{path} has no labels")
    return found
