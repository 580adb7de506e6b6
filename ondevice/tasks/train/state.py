"""An unfinished training on disk, so that it can go on after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...errors import ConfigError, OutputError
from ...weights.output import replacing
from ...weights.safetensors import read_safetensors, write_safetensors
from .history import Epoch
from .optimizer import Arrays

SUFFIX = ".training.safetensors"
MAY_CHANGE = {"lr"}  # from one run to the next
CHANGED = {  # what says more than two hashes do
    "images": "images, classes or their split have changed",
    "weights": "the weights to start from have changed",
    "teacher": "the teacher has changed",
}


@dataclass
class State:
    """What a run began with, and how far it is; ``best`` are the weights to be saved."""

    about: Mapping[str, Any]
    step: int = 0
    epoch_steps: int = 0  # 0: not known yet
    epochs: list[Epoch] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    best: Arrays = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)  # by which weights are rounded
    rounded_from: int = 0  # the first epoch that rounded

    @property
    def best_epoch(self) -> int:
        """The first of those with the best validation; once weights are rounded, of those."""
        known = [epoch for epoch in self.epochs if epoch.epoch >= self.rounded_from]
        return max(known, key=lambda e: (e.score, -e.epoch)).epoch


def state_path(out: Path) -> Path:
    """Where the state of a training for ``out`` is: beside it."""
    return out.with_name(out.name + SUFFIX)


def save_state(state: State, path: Path) -> None:
    """Replace the file whole, or leave it as it was. Raises OutputError."""
    facts = {
        "about": state.about,
        "step": state.step,
        "epoch_steps": state.epoch_steps,
        "epochs": [list(vars(epoch).values()) for epoch in state.epochs],
        "failed": list(state.failed.items()),
        "recipe": state.recipe,
        "rounded_from": state.rounded_from,
    }
    arrays = {f"state.{k}": v for k, v in state.arrays.items()}
    arrays |= {f"best.{k}": v for k, v in state.best.items()}
    with replacing(path, force=True) as partial:
        write_safetensors(partial, arrays, {"training": json.dumps(facts)})


def load_state(path: Path, about: Mapping[str, Any]) -> State:
    """The state of a run that began with what ``about`` says, or an empty one if none is there.

    Raises ConfigError that names what has changed since, or if the file is no such state.
    """
    if not path.exists():
        return State(about)
    arrays, metadata = read_safetensors(path)
    try:
        facts = json.loads(metadata["training"])
        before, epochs = facts["about"], [Epoch(*row) for row in facts["epochs"]]
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a training's state: {error!r}") from error
    now = json.loads(json.dumps(about))
    changed = [
        CHANGED.get(key) or _difference(key, before.get(key), now.get(key))
        for key in {**before, **now}
        if before.get(key) != now.get(key) and key not in MAY_CHANGE
    ]
    if changed:
        raise ConfigError(
            f"{path} cannot be resumed: {'; '.join(changed)}; --force starts over"
        )
    return State(
        about,
        facts["step"],
        facts["epoch_steps"],
        epochs,
        {int(position): problem for position, problem in facts["failed"]},
        _under(arrays, "state."),
        _under(arrays, "best."),
        facts.get("recipe", {}),
        facts.get("rounded_from", 0),
    )


def _difference(key: str, before: Any, now: Any) -> str:
    """What was and what is; of a table the entries that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        return "; ".join(_difference(f"{key}.{k}", before.get(k), now.get(k)) for k in keys)
    return f"{key} was {before!r:.60}, now {now!r:.60}"


def _under(arrays: Mapping[str, mx.array], prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def check_no_state(path: Path) -> None:
    """Raises OutputError if an unfinished training is there."""
    if path.exists():
        raise OutputError(
            f"{path} is of an unfinished training: --resume goes on, --force starts over"
        )
