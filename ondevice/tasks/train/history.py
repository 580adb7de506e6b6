"""What each epoch gave: as a table, as curves, and as a page."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ...config import ModelInfo
from ...pages import Axis, Cell, Curve, percent, plot, template
from ...weights.folder import read_info

METRICS = {"top1": "top-1", "ap": "AP", "miou": "mIoU"}  # as people write them


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch; the validation is of the weights that would be saved after it.

    ``score``, from 0 to 1, is what ``metric`` says: one of ``METRICS``.
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
    """``history.csv``, ``.svg`` and ``.html`` in ``folder``, a saved model. Raises OSError."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        *columns, _ = (field.name for field in fields(Epoch))
        named = {"score": f"val_{epochs[0].metric}"}
        table.writerow(named.get(name, name) for name in columns)
        table.writerows([getattr(epoch, name) for name in columns] for epoch in epochs)
    (folder / "history.svg").write_text(scores(epochs, as_file=True), encoding="utf-8")
    page = to_html(epochs, read_info(folder))
    (folder / "history.html").write_text(page, encoding="utf-8")


def to_html(epochs: Sequence[Epoch], info: ModelInfo) -> str:
    """The training as one page: what came of it, its curves and its epochs."""
    best = max(epochs, key=lambda epoch: epoch.score)
    about = {"started from": info.provenance, "licence": info.license, **info.metrics}
    return template(Path(__file__).with_name("history.html.jinja")).render(
        info=info,
        best=best,
        metric=METRICS[best.metric],
        seconds=sum(epoch.seconds for epoch in epochs),
        scores=scores(epochs),
        losses=losses(epochs),
        about=[(name, str(value)) for name, value in about.items()],
        epochs=[_row(epoch, "ok" if epoch is best else "") for epoch in epochs],
    )


def _row(e: Epoch, kind: str) -> Sequence[object]:
    score = Cell(percent(e.score), kind)
    speed = f"{e.seconds:.1f}", f"{e.images_per_second:.0f}"
    return e.epoch, score, f"{e.loss:.3f}", f"{e.val_loss:.3f}", f"{e.lr:.2e}", *speed


def scores(epochs: Sequence[Epoch], *, as_file: bool = False) -> str:
    """The validation's score over epochs as SVG, the best one marked."""
    best = max(range(len(epochs)), key=lambda i: epochs[i].score)
    curve = Curve(
        [(e.epoch, 100 * e.score) for e in epochs],
        [f"epoch {e.epoch}: {e.score:.1%}, loss {e.loss:.3f}" for e in epochs],
        marked=best,
    )
    x, y = epoch_axis(epochs[-1].epoch), score_axis(epochs[0].metric)
    return plot([curve], x, y, as_file=as_file)


def losses(epochs: Sequence[Epoch]) -> str:
    """The losses of training and validation over epochs as SVG."""
    curves = [
        Curve(
            [(e.epoch, getattr(e, name)) for e in epochs],
            [f"epoch {e.epoch}: {getattr(e, name):.3f}" for e in epochs],
        )
        for name in ("loss", "val_loss")
    ]
    top = max(y for curve in curves for _, y in curve.points) * 1.05
    ticks = [(share * top, f"{share * top:.2g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    return plot(curves, epoch_axis(epochs[-1].epoch), Axis("loss", 0, top, ticks))


def epoch_axis(last: int) -> Axis:
    """From 0 to the last epoch."""
    return Axis("epoch", 0, last, [(0, "0"), (last, str(last))])


def score_axis(metric: str) -> Axis:
    """Of a validation's score in percent."""
    ticks = [(v, str(v)) for v in range(0, 101, 20)]
    return Axis(f"validation {METRICS[metric]}, %", 0, 100, ticks)
