"""Draws the scores of trainings over their epochs, one curve each, as one SVG.

    python -m tests.benchmarks.curves OUT.svg "from CIFAR-10's weights=a/" "from nothing=b/"

Folders are those that ``ondevice train`` wrote, of one metric.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from ondevice.pages import Curve, plot
from ondevice.tasks.train.history import epoch_axis, score_axis

SCORE = "val_"  # how the column of the score begins


def read(folder: Path) -> tuple[str, list[float]]:
    """The metric of ``history.csv``, and its score in percent after each epoch."""
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    name = next(key for key in rows[0] if key.startswith(SCORE) and key != "val_loss")
    return name.removeprefix(SCORE), [100 * float(row[name]) for row in rows]


def draw(trainings: dict[str, Path]) -> str:
    """The SVG; the best epoch of each training is marked with its name and score."""
    metrics, curves, last = set(), [], 0
    for name, folder in trainings.items():
        metric, scores = read(folder)
        best = max(range(len(scores)), key=scores.__getitem__)
        titles = [f"{name}: {score:.1f} % after epoch {k}" for k, score in enumerate(scores, 1)]
        curves.append(Curve(list(enumerate(scores, 1)), titles, marked=best))
        metrics.add(metric)
        last = max(last, len(scores))
    if len(metrics) > 1:
        raise SystemExit(f"one plot has one metric, not {', '.join(sorted(metrics))}")
    return plot(curves, epoch_axis(last), score_axis(metrics.pop()), as_file=True)


def main() -> None:
    """Reads the command line and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("trainings", nargs="+", metavar="NAME=FOLDER")
    options = parser.parse_args()
    named = [training.partition("=") for training in options.trainings]
    if wrong := [
        name for name, _, folder in named if not (Path(folder) / "history.csv").is_file()
    ]:
        parser.error(f"no history.csv for {', '.join(wrong)}; give NAME=FOLDER of a training")
    trainings = {name: Path(folder) for name, _, folder in named}
    options.out.write_text(draw(trainings), encoding="utf-8")


if __name__ == "__main__":
    main()
