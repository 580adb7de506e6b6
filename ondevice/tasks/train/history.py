"""What each epoch gave, as a table and as curves."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ...pages import STYLE, Axis, Curve, plot


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch; the validation is of the weights that would be saved after it."""

    epoch: int
    lr: float
    loss: float
    val_loss: float
    val_top1: float
    seconds: float
    images_per_second: float


def write_history(epochs: Sequence[Epoch], folder: Path) -> None:
    """``history.csv`` and ``history.svg`` in ``folder``. Raises OSError."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        table.writeheader()
        table.writerows(asdict(epoch) for epoch in epochs)
    (folder / "history.svg").write_text(curves(epochs), encoding="utf-8")


def curves(epochs: Sequence[Epoch], style: str = STYLE) -> str:
    """Validation accuracy over epochs as SVG, the best one marked."""
    best = max(range(len(epochs)), key=lambda i: epochs[i].val_top1)
    accuracy = Curve(
        [(e.epoch, 100 * e.val_top1) for e in epochs],
        [f"epoch {e.epoch}: {e.val_top1:.1%}, loss {e.loss:.3f}" for e in epochs],
        marked=best,
    )
    last = epochs[-1].epoch
    return plot(
        [accuracy],
        Axis("epoch", 0, last, [(0, "0"), (last, str(last))]),
        Axis("validation top-1, %", 0, 100, [(v, str(v)) for v in range(0, 101, 20)]),
        style=style,
    )
