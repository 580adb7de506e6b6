"""``ondevice evaluate``: how good models are on images of which the answers are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import click

from ..weights.output import check_free, replacing
from ._evaluated import Evaluated, Opened
from ._images import SKIPS
from ._output import check_force, json_option, print_json

# task -> module:function, and what shows it: a kind of a model's outputs, a package's output
TASKS: dict[str, tuple[str, set[str]]] = {
    "detect": ("_evaluate_boxes:evaluate_boxes", {"boxes", "coordinates"}),
    "segment": ("_evaluate_masks:evaluate_masks", {"mask", "mask_image"}),
    "classify": ("_evaluate_classes:evaluate_classes", set()),  # all others
}


@click.command("evaluate", epilog=SKIPS)
@click.argument("models", metavar="MODEL|FOLDER|PACKAGE...", nargs=-1, required=True)
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path),
    help="To classify: a folder of images for each class, or with labels.csv. To detect: a "
    "folder or a .json file in COCO's form. To segment: images/ and masks/, PNG files of class "
    "numbers, and perhaps classes.txt. Of splits, test or else val.",
)
@click.option(
    "--task",
    type=click.Choice(list(TASKS)),
    help="Default: what the first MODEL's outputs say.",
)
@click.option("--html", type=click.Path(path_type=Path), help="Write a report to this file.")
@click.option("--force", is_flag=True, help="Replace an existing report.")
@json_option
@click.pass_context
def evaluate_command(
    ctx: click.Context,
    models: tuple[str, ...],
    images: Path,
    task: str | None,
    html: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure each MODEL: classifiers by accuracy, calibration and each class, detectors by
    COCO's average precision, masks by intersections over unions.

    Images that a saved folder was trained on are left out, as far as it says (split.csv).
    Several are compared with the first one, on the same images: classifiers by how often they
    agree and McNemar's test, others by the difference and its interval.
    """
    check_force(ctx, "html")
    if html:
        check_free(html.absolute(), force=force)
    opened = [Opened.of(name) for name in models]
    found = _function(task or _task_of(opened[0]))(opened, images)
    if html:
        page = found.to_html(found.evaluations, found.comparisons)
        with replacing(html, force=force) as partial:
            partial.write_text(page, encoding="utf-8")
    if as_json:
        print_json(found.to_json())
    else:
        found.print(found.evaluations, found.comparisons)
    ctx.exit(found.skipped.status(found.total))


def _function(task: str) -> Callable[[Sequence[Opened], Path], Evaluated]:
    module, _, name = TASKS[task][0].partition(":")
    function: Callable[[Sequence[Opened], Path], Evaluated]
    function = getattr(import_module(f"{__package__}.{module}"), name)
    return function


def _task_of(first: Opened) -> str:
    """What the outputs say."""
    return next((task for task, (_, signs) in TASKS.items() if signs & first.gives), "classify")
