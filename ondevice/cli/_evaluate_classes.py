"""What ``ondevice evaluate`` does with classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, ImageError
from ._evaluated import Evaluated, Opened, evaluated, image_input, tell_split, unseen
from ._output import print_table

if TYPE_CHECKING:
    from converters.program import Program

    from ..tasks.train.evaluate import Comparison, Evaluation, Scorer


def evaluate_classes(opened: Sequence[Opened], images: Path) -> Evaluated:
    """Accuracy, calibration and each class, on a folder of images for each class."""
    from ..tasks.train.evaluate import evaluate, labelled_images
    from ..tasks.train.report import to_html

    scorers = [_scorer(each) for each in opened]
    samples, split = labelled_images(images, scorers[0].classes)
    tell_split(images, split)
    samples = unseen(samples, opened)
    measure = partial(evaluate, scorers, samples)
    return evaluated(measure, len(samples), _print, to_html)


def _scorer(given: Opened) -> Scorer:
    from ..tasks.train.evaluate import model_scorer

    if given.package is not None:
        return _package_scorer(given.package, given.name)
    return model_scorer(given.model, given.name)


def _package_scorer(package: Program, name: str) -> Scorer:
    """A package, run one image at a time. Raises ConfigError if it names no classes, or gives
    no score of a whole image for each."""
    import numpy as np

    from ..tasks.train.evaluate import Scorer

    tables = [n for n, f in package.outputs.items() if f.kind == "dictionary"]
    image, size = image_input(package)
    probe = package.predict({image: np.zeros((*size, 3), np.uint8)})
    classes = tuple(map(str, probe[tables[0]])) if tables else package.labels
    if not classes:
        raise ConfigError(f"{name} names no classes, so none can be compared with folders")
    arrays = [n for n in package.arrays if np.size(probe[n]) == len(classes)]
    if not tables and not arrays:
        raise ConfigError(
            f"{name} gives {', '.join(package.outputs)}: no score of a whole image for each of "
            f"its {len(classes)} classes, so none can be compared with folders"
        )

    def one(path: str) -> Any:
        found = package.predict({image: package.resize_and_crop(path)})
        if "logits" in arrays:
            return found["logits"].reshape(-1)
        scores = list(found[tables[0]].values()) if tables else found[arrays[0]]
        return np.log(np.maximum(np.asarray(scores, np.float64).reshape(-1), 1e-12))

    return Scorer(name, classes, lambda paths, on_error: _one_by_one(one, paths, on_error))


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
