"""``ondevice evaluate``: how good classifiers are on a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, ImageError
from ..weights.output import check_free
from ._images import SKIPS, Skipped
from ._output import json_option, print_json, print_table

if TYPE_CHECKING:
    from converters.program import Program

    from ..tasks.train.dataset import Sample
    from ..tasks.train.evaluate import Comparison, Evaluation, Scorer


@click.command("evaluate", epilog=SKIPS)
@click.argument("models", metavar="MODEL|FOLDER|PACKAGE...", nargs=-1, required=True)
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path),
    help="A folder of images for each class, or with labels.csv; of splits, test or else val.",
)
@click.option("--html", type=click.Path(path_type=Path), help="Write a report to this file.")
@click.option("--force", is_flag=True, help="Replace an existing report.")
@json_option
@click.pass_context
def evaluate_command(
    ctx: click.Context,
    models: tuple[str, ...],
    images: Path,
    html: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure each MODEL on labelled images: accuracy, calibration, each class.

    Images that a saved folder was trained on are left out, as far as it says (split.csv).
    Several are compared with the first one, on the same images: how often they agree, and
    McNemar's test of which one is better.
    """
    from ..tasks.train.evaluate import evaluate, labelled_images, to_json

    if html:
        check_free(html.absolute(), force=force)
    scorers = [_scorer(name) for name in models]
    samples, split = labelled_images(images, scorers[0].classes)
    if split:
        click.echo(f"{images}: images for {split}", err=True)
    samples = _unseen(samples, models)
    skipped = Skipped()
    try:
        evaluations, comparisons = evaluate(scorers, samples, skipped)
    except ImageError:  # no image at all: each has its reason
        skipped.check(len(samples))
        raise
    if html:
        from ..tasks.train.report import write_report

        write_report(evaluations, comparisons, html, force=force)
    if as_json:
        print_json({**to_json(evaluations, comparisons), "skipped": skipped.problems})
    else:
        _print(evaluations, comparisons)
    ctx.exit(skipped.status(len(samples)))


def _unseen(samples: list[Sample], models: Sequence[str]) -> list[Sample]:
    """Without the images that a saved folder was trained on, which would flatter it."""
    from ..tasks.train.dataset import unseen

    for name in models:
        left = unseen(samples, Path(name))
        if not left:
            click.echo(f"warning: {name} was trained on all of these images", err=True)
        elif len(left) < len(samples):
            count = len(samples) - len(left)
            click.echo(f"{name} was trained on {count:,} of the images: left out", err=True)
        samples = left or samples
    return samples


def _scorer(name: str) -> Scorer:
    """What ``name`` means: a package by its suffix, or a model."""
    from converters.backend import BACKENDS, COMPILED

    from ..tasks.load import load
    from ..tasks.train.evaluate import model_scorer

    if Path(name).suffix in {*BACKENDS, *COMPILED}:
        from converters.backend import load_package

        return _package_scorer(load_package(name), name)
    return model_scorer(load(name), name)


def _package_scorer(package: Program, name: str) -> Scorer:
    """A package, run one image at a time. Raises ConfigError if it names no classes."""
    from ..tasks.train.evaluate import Scorer

    tables = [n for n, f in package.outputs.items() if f.kind == "dictionary"]
    image, given = _image_input(package)
    probe = package.predict({image: given})
    classes = tuple(map(str, probe[tables[0]])) if tables else package.labels
    if not classes:
        raise ConfigError(f"{name} names no classes, so none can be compared with folders")

    def one(path: str) -> Any:
        import numpy as np

        found = package.predict({image: package.resize_and_crop(path)})
        if "logits" in found and found["logits"].shape[-1] == len(classes):
            return found["logits"].reshape(-1)
        scores = list(found[tables[0]].values()) if tables else found[package.arrays[0]]
        return np.log(np.maximum(np.asarray(scores, np.float64).reshape(-1), 1e-12))

    return Scorer(name, classes, lambda paths, on_error: _one_by_one(one, paths, on_error))


def _image_input(package: Program) -> tuple[str, Any]:
    """The name of the one image that a package takes, and a black one."""
    import numpy as np

    images = {n: package.as_image(f) for n, f in package.inputs.items()}
    shapes = [(n, f.shape) for n, f in images.items() if f.kind == "image"]
    if len(shapes) != 1 or len(images) != 1 or package.preprocess is None:
        takes = ", ".join(map(str, package.inputs.values())) or "nothing"
        raise ConfigError(f"{package.path} takes {takes}; one image is expected")
    name, shape = shapes[0]
    return name, np.zeros((*shape, 3), np.uint8)


def _one_by_one(
    one: Callable[[str], Any], paths: Sequence[str], on_error: Callable[[int, ImageError], Any]
) -> tuple[Any, Any]:
    import numpy as np

    rows, positions = [], []
    for position, path in enumerate(paths):
        try:
            rows.append(one(path))
            positions.append(position)
        except ImageError as error:
            on_error(position, error)
    if not rows:
        raise ImageError("none of the images can be used")
    return np.stack(rows), np.array(positions)


def _print(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> None:
    header = (">images", ">top-1", "95 % interval", ">top-5", ">macro F1", ">calibration error")
    print_table(
        ("model", *header),
        (
            (
                e.name,
                e.images,
                f"{e.top1:.1%}",
                f"{e.low:.1%} to {e.high:.1%}",
                None if e.top5 is None else f"{e.top5:.1%}",
                f"{e.macro_f1:.3f}",
                f"{e.calibration_error:.3f}",
            )
            for e in evaluations
        ),
    )
    click.echo()
    first = evaluations[0]
    print_table(
        ("class", ">images", ">recall", "95 % interval", ">precision", ">F1", "most taken for"),
        (
            (
                c.name,
                c.images,
                f"{c.recall:.1%}",
                f"{c.low:.1%} to {c.high:.1%}",
                f"{c.precision:.1%}",
                f"{c.f1:.3f}",
                _taken_for(first, i),
            )
            for i, c in enumerate(first.per_class)
            if c.images
        ),
    )
    for c in comparisons:
        click.echo(
            f"\n{c.first} and {c.second} agree on {c.agreement:.1%}; only the first is right "
            f"on {c.only_first_right}, only the second on {c.only_second_right} (McNemar's "
            f"p {c.p:.3g})"
        )


def _taken_for(evaluation: Evaluation, shown: int) -> str | None:
    row = list(evaluation.confusion[shown])
    row[shown] = 0
    most = max(row)
    return f"{evaluation.classes[row.index(most)]} ({most})" if most else None
