"""What each epoch gave, as a table and as curves."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ...pages import STYLE, Axis, Curve, plot

METRICS = {"top1": "top-1", "ap": "AP"}  # as people write them


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch; the validation is of the weights that would be saved after it.

    ``score``, from 0 to 1, is what ``metric`` says: top-1 accuracy, or average precision.
    """

    epoch: int
    lr: float
    loss: float
    val_loss: float
    score: float
    seconds: float
    images_per_second: float
    metric: str = "top1"


def write_history(epochs: Sequence[Epoch], folder: Path) -> None:
    """``history.csv`` and ``history.svg`` in ``folder``. Raises OSError."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        *columns, _ = (field.name for field in fields(Epoch))
        named = {"score": f"val_{epochs[0].metric}"}
        table.writerow(named.get(name, name) for name in columns)
        table.writerows([getattr(epoch, name) for name in columns] for epoch in epochs)
    (folder / "history.svg").write_text(curves(epochs), encoding="utf-8")


def curves(epochs: Sequence[Epoch], style: str = STYLE) -> str:
    """The validation's score over epochs as SVG, the best one marked."""
    best = max(range(len(epochs)), key=lambda i: epochs[i].score)
    accuracy = Curve(
        [(e.epoch, 100 * e.score) for e in epochs],
        [f"epoch {e.epoch}: {e.score:.1%}, loss {e.loss:.3f}" for e in epochs],
        marked=best,
    )
    last = epochs[-1].epoch
    return plot(
        [accuracy],
        Axis("epoch", 0, last, [(0, "0"), (last, str(last))]),
        Axis(
            f"validation {METRICS[epochs[0].metric]}, %",
            0,
            100,
            [(v, str(v)) for v in range(0, 101, 20)],
        ),
        style=style,
    )
