"""All weights trained: epochs of steps, validation after each, a state on disk after each."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from ...errors import TrainingError, printable
from ...nn.rounding import Rounding, move_to
from ..ranks import Ranks
from .dataset import Dataset
from .half import check_precision
from .history import Epoch
from .loader import Batch, Changes, Loader
from .optimizer import Arrays
from .state import State, save_state
from .task import Task
from .trainer import Settings, Trainer

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

VAL_BATCH = 64
RANGE_IMAGES = 64  # of which the ranges of rounded activations are found


class Callback:
    """What is told how a training goes; to be subclassed."""

    def on_view(self, done: int, total: int) -> None:
        """After a teacher has seen all images in another random view."""

    def on_step(self, done: int, total: int, loss: float) -> None:
        """After each step."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After each epoch."""


@dataclass
class Fit:
    """Train ``model`` from ``state`` on, which is saved at ``path`` after each epoch."""

    model: nn.Module
    dataset: Dataset
    settings: Settings
    augment: Changes
    task: Task
    state: State
    path: Path
    workers: int | None = None
    callbacks: Sequence[Callback] = ()
    rounding: Rounding | None = None
    ranks: Ranks = field(default_factory=Ranks)

    def __call__(self) -> State:
        """At the end the model has the weights of the epoch with the best validation.

        Raises TrainingError if the loss is no number any more, OutputError if a state cannot
        be written.
        """
        state = self.state
        self.train = self._loader("train", self.settings.batch_size, self.augment)
        self.val = self._loader("val", VAL_BATCH, None)
        self.train.failed = state.failed
        state.epoch_steps = state.epoch_steps or len(self.train)
        if self.settings.precision != "float32":
            check_precision(self.model, self.settings.precision, self._some_images()[:8])
        if self.rounding and not state.recipe:  # what is wrong with it is said now, not later
            self.rounding.prepare(self.model, self._some_images())
        self.trainer = self._trainer()
        while not self._is_done():
            epoch, chosen = self._epoch(len(state.epochs) + 1)
            _record(state, self.trainer, epoch, chosen)
            if self.ranks.rank == 0:
                save_state(state, self.path)
            for callback in self.callbacks:
                callback.on_epoch(epoch)
        self.model.update(tree_unflatten(list(state.best.items())))
        self.model.eval()
        return state

    @property
    def skipped(self) -> list[str]:
        """Why images are left out that were found to be damaged on the way."""
        return [*self.train.failed.values(), *self.val.failed.values()]

    def _loader(self, split: str, batch_size: int, augment: Changes | None) -> Loader:
        return Loader(
            self.dataset.splits[split],
            self.model.info.preprocess,
            batch_size=batch_size,
            augment=augment,
            seed=self.settings.seed,
            workers=self.workers,
            views=self.task.views if augment else 0,
            rank=self.ranks.rank if augment else 0,
            ranks=self.ranks.size if augment else 1,
        )

    def _trainer(self) -> Trainer:
        per_epoch = self.state.epoch_steps
        total = per_epoch * self.settings.epochs
        trainer = Trainer(
            self.model,
            self.settings,
            steps=total,
            epoch_steps=per_epoch,
            loss=self.task.loss,
            outputs=self.task.outputs,
            compiled=self.task.compiled,
            ranks=self.ranks,
        )
        if self.state.arrays:
            trainer.restore(self.state.arrays, self.state.step)
        return trainer

    def _is_done(self) -> bool:
        epochs, patience = len(self.state.epochs), self.settings.patience
        waited = epochs - self.state.best_epoch if epochs else 0
        return epochs >= self.settings.epochs or bool(patience and waited >= patience)

    def _epoch(self, number: int) -> tuple[Epoch, Arrays]:
        """Figures of an epoch, and the weights that would be saved after it."""
        if self.rounding and number > self.settings.epochs - self.settings.qat_epochs:
            self._round(self.rounding, number)
        start, rate, trainer = time.perf_counter(), self.trainer.rate, self.trainer
        losses, images = [], 0
        for batch, together in self._batches(number):
            losses.append(self._step(batch, number, together))
            images += together
            for callback in self.callbacks:
                callback.on_step(trainer.done, trainer.steps, losses[-1])
        self._share_failures()
        speed = images / (time.perf_counter() - start)
        chosen = dict(trainer.average or trainer.arrays())
        validated = np.array(_validate(self.task, trainer, chosen, self.val))
        val_loss, score = map(float, self.ranks.gather(validated)[0])
        if not np.isfinite(val_loss):
            error = TrainingError(f"the validation's loss is {val_loss} after epoch {number}")
            raise _stopped(error, self.state, self.path)
        seconds = time.perf_counter() - start
        facts = (number, rate, _mean(losses), val_loss, score, seconds, speed)
        return Epoch(*facts, self.task.metric), chosen

    def _batches(self, number: int) -> Iterator[tuple[Batch, int]]:
        """This rank's share of each batch, and how many images all ranks have; to the last of
        which each has some."""
        found = self.train.epoch(number)
        while True:
            batch = next(found, None)
            counts = self.ranks.gather(np.int64(len(batch.pixels) if batch else 0))
            if batch is None or not counts.all():
                return
            yield batch, int(counts.sum())

    def _share_failures(self) -> None:
        """What one rank could not read, none uses in the next epoch."""
        failed = self.train.failed
        own = np.zeros(len(self.train.samples), np.uint8)
        own[list(failed)] = 1
        for rank, theirs in enumerate(self.ranks.gather(own)):
            for i in map(int, np.flatnonzero(theirs)):
                path = printable(self.train.samples[i].path)
                if i not in failed:
                    failed[i] = self.train.problem(i) or f"{path}: rank {rank} cannot read it"

    def _round(self, rounding: Rounding, epoch: int) -> None:
        """Weights are rounded from this epoch on."""
        state = self.state
        if not state.recipe:
            state.rounded_from = epoch
            images = self._some_images()
            if not self.settings.adapter:  # beside which weights stay as they are
                move_to(self.model, rounding.start(self.model.eval(), images))
            state.recipe = rounding.prepare(self.model.eval(), images)
            self.trainer.train_mode()
            digest = hashlib.sha256(json.dumps(state.recipe).encode()).digest()
            self.ranks.agree(digest, "ranges of activations")
        rounding.begin(state.recipe)
        self.trainer.round_by(rounding)

    def _some_images(self) -> list[Array]:
        """Of the images to train on, spread evenly, as the model sees them in use."""
        samples = self.dataset.splits["train"]
        some = samples[:: -(-len(samples) // RANGE_IMAGES)]
        loader = Loader(some, self.train.spec, batch_size=RANGE_IMAGES, workers=self.workers)
        return [pixels for batch in loader.epoch() for pixels in batch.pixels]

    def _step(self, batch: Batch, epoch: int, together: int) -> float:
        rng = np.random.default_rng([self.settings.seed, 1, self.trainer.done])
        pixels, targets = self.task.batch(batch, epoch, rng)
        try:
            return self.trainer.step(pixels, targets, together)
        except TrainingError as error:
            raise _stopped(error, self.state, self.path) from error


def _mean(losses: Sequence[float]) -> float:
    return float(np.mean(losses)) if losses else float("nan")


def _validate(task: Task, trainer: Trainer, chosen: Arrays, val: Loader) -> tuple[float, float]:
    """Loss and score of the weights that would be saved; the model trains on afterwards."""
    model, own = trainer.model, trainer.arrays()
    model.update(tree_unflatten(list(chosen.items())))
    found = task.validate(trainer.inference(), val)
    model.update(tree_unflatten(list(own.items())))
    trainer.train_mode()
    return found


def _record(state: State, trainer: Trainer, epoch: Epoch, chosen: Arrays) -> None:
    state.epochs.append(epoch)
    state.step = trainer.done
    state.arrays = trainer.state()
    if state.best_epoch == epoch.epoch:
        state.best = {k: mx.array(v) for k, v in chosen.items()}


def _stopped(error: TrainingError, state: State, path: Path) -> TrainingError:
    kept = (
        f"{path} has the state after epoch {len(state.epochs)}: --resume with a lower --lr"
        if state.epochs
        else "nothing is kept of the first epoch: start again with a lower --lr"
    )
    return TrainingError(f"{error}; {kept}")
