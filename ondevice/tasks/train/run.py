"""From a folder of images to a saved model: the methods, and what is written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...cpu import blas
from ...errors import ConfigError
from ...weights.folder import save_model
from ...weights.hash import weights_hash
from ...weights.output import check_free, replacing
from .augment import Augment
from .dataset import VAL_SHARE, Dataset, read_dataset, write_split
from .fit import Callback, Fit, class_weights
from .history import Epoch, write_history
from .loader import Loader
from .metrics import calibration_error, fit_temperature, top_k
from .predict import predictions
from .probe import Linear, class_means, nearest_neighbours, regression
from .start import check_start, head_input, linear, new_model
from .state import State, check_no_state, load_state, state_path
from .trainer import Loss, Settings, soft_cross_entropy

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

logger = logging.getLogger("ondevice")

MIX_FROM = 1000  # images to train on: with fewer, mixed ones teach too little
FULL_FROM = 200  # images to train on: with fewer, a head alone is the safer choice
FEATURE_BATCH = 32


@dataclass
class Training:
    """What a training is about and what it has found, for all methods."""

    model: nn.Module
    dataset: Dataset
    settings: Settings
    augment: Augment
    out: Path
    resume: bool
    workers: int | None
    loss: Loss
    callbacks: Sequence[Callback]
    epochs: list[Epoch] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.skipped = list(self.dataset.skipped)

    @property
    def about(self) -> dict[str, Any]:
        """What has to be the same when a training goes on."""
        return {
            "images": self.dataset.fingerprint,
            "weights": weights_hash(self.model),
            "input": self.model.info.preprocess.to_dict(),
            "augment": asdict(self.augment),
            **asdict(self.settings),
        }


def train(
    images: str | Path,
    out: str | Path,
    *,
    model: str = "shvit_s1",
    method: str = "auto",
    size: int | None = None,
    pretrained: bool = True,
    val_share: float = VAL_SHARE,
    resume: bool = False,
    force: bool = False,
    workers: int | None = None,
    augment: Augment | None = None,
    flip: bool = True,
    loss: Loss = soft_cross_entropy,
    callbacks: Sequence[Callback] = (),
    on_skipped: Callable[[str], object] | None = None,
    **settings: Any,
) -> nn.Module:
    """Train ``model`` on the folder ``images``, save it in the folder ``out``, return it.

    ``method`` is "knn" (the nearest class mean, no training), "probe" (a head on features that
    stay), "full" (all weights) or "auto". Further ``settings`` are those of ``Settings``.
    ``resume`` goes on with what was killed, to the same weights. ``model.info.metrics`` has
    what was measured on the validation images, ``out`` a history of the epochs as well.
    ``augment`` says how images are changed for "full"; by default of ``MIX_FROM`` images or
    more a fifth of the batches is mixed, and without ``flip`` none is mirrored.
    ``on_skipped`` is called with the reason for each image that is left out.

    Raises ConfigError with all that is wrong, OutputError, TrainingError.
    """
    chosen = _settings(settings, pretrained)
    _check(model, method, Path(out), resume=resume, force=force)
    dataset = read_dataset(images, val_share=val_share, seed=chosen.seed)
    method = _method(method, dataset, pretrained)
    if resume and method != "full":
        raise ConfigError(f"--resume goes with --method full; {method} takes seconds")
    blas.advise()
    network = new_model(
        model, dataset.classes, size=size, pretrained=pretrained, seed=chosen.seed
    )
    training = Training(
        network,
        dataset,
        chosen,
        _augment(augment, dataset, flip=flip),
        Path(out),
        resume,
        workers,
        loss,
        callbacks,
    )
    for note in dataset.notes:
        logger.warning(note)
    METHODS[method](training)
    _finish(training, method, force)
    if on_skipped:
        for problem in dict.fromkeys(training.skipped):
            on_skipped(problem)
    return network


def _check(model: str, method: str, out: Path, *, resume: bool, force: bool) -> None:
    """Raises what is wrong before an image is read."""
    check_free(out.absolute(), force=force, marker="config.json")
    if not (resume or force):
        check_no_state(state_path(out))
    if method not in ("auto", *METHODS):
        raise ConfigError(f"no method {method!r}; there are auto, {', '.join(METHODS)}")
    check_start(model)


def _augment(given: Augment | None, dataset: Dataset, *, flip: bool) -> Augment:
    many = len(dataset.splits["train"]) >= MIX_FROM
    augment = given or Augment(mix=0.2 if many else 0.0)
    return replace(augment, flip=augment.flip and flip)


def _settings(given: dict[str, Any], pretrained: bool) -> Settings:
    try:
        settings = Settings(**given)
    except TypeError as error:
        raise ConfigError(f"no such setting: {error}") from error
    if settings.frozen_norms is None and not pretrained:
        return replace(settings, frozen_norms=False)
    return settings


def _method(method: str, dataset: Dataset, pretrained: bool) -> str:
    """What "auto" means for these images. Raises ConfigError."""
    if method != "auto":
        if method != "full" and not pretrained:
            raise ConfigError(f"random weights have no features for {method}; use full")
        return method
    count = len(dataset.splits["train"])
    chosen = "full" if count >= FULL_FROM or not pretrained else "probe"
    logger.info("%d images to train on: method %s", count, chosen)
    return chosen


def _full(training: Training) -> None:
    """All weights."""
    path = state_path(training.out)
    if training.resume and not path.exists():
        logger.warning(f"{path} does not exist: training starts from the beginning")
    about = training.about
    state = load_state(path, about) if training.resume else State(about)
    fit = Fit(
        training.model,
        training.dataset,
        training.settings,
        training.augment,
        state,
        path,
        training.workers,
        training.loss,
        training.callbacks,
    )
    training.epochs = fit().epochs
    training.skipped += fit.skipped


def _features(training: Training, split: str) -> tuple[Array, Array]:
    """(N, C) vectors that the last layer reads, and the (N,) classes."""
    model, samples = training.model, training.dataset.splits[split]
    spec = model.info.preprocess
    loader = Loader(samples, spec, batch_size=FEATURE_BATCH, workers=training.workers)
    found, positions = predictions(lambda x: head_input(model, x), loader, spec)
    training.skipped += loader.failed.values()
    return found, np.array([samples[i].label for i in positions])


def _knn(training: Training) -> None:
    (x, labels), (val, val_labels) = (_features(training, s) for s in ("train", "val"))
    classes = len(training.dataset.classes)
    _set_head(training.model, class_means(x, labels, classes))
    votes = nearest_neighbours(x, labels, val, classes)
    training.metrics["knn_top1"] = round(100 * top_k(votes, val_labels, 1), 2)


def _probe(training: Training) -> None:
    x, labels = _features(training, "train")
    weights = class_weights(training.dataset, training.settings)
    head, strength = regression(x, labels, weights, seed=training.settings.seed)
    _set_head(training.model, head)
    training.metrics["l2"] = strength


def _set_head(model: nn.Module, head: Linear) -> None:
    layer = linear(model)
    layer.weight = mx.array(head.weight.astype(np.float32))
    layer.bias = mx.array(head.bias.astype(np.float32))


METHODS: dict[str, Callable[[Training], None]] = {"knn": _knn, "probe": _probe, "full": _full}


def _finish(training: Training, method: str, force: bool) -> None:
    """Measure the model as it will be saved, and save it; the state is then of no use."""
    model = training.model
    training.metrics = {"method": method, **training.metrics, **_measured(training)}
    counts = ", ".join(
        f"{len(s):,} for {name}" for name, s in training.dataset.splits.items() if s
    )
    said = f"{model.info.provenance} Method {method} on images of one's own: {counts}."
    model.info = replace(model.info, metrics=training.metrics, provenance=said)
    with replacing(training.out, force=force, marker="config.json") as partial:
        save_model(model, partial)
        write_split(training.dataset, partial)
        if training.epochs:
            write_history(training.epochs, partial)
    state_path(training.out).unlink(missing_ok=True)


def _measured(training: Training) -> dict[str, Any]:
    """Accuracy and calibration on the validation images, and on those for a test."""
    model, spec = training.model, training.model.info.preprocess
    found: dict[str, Any] = {}
    for split in ("val", "test"):
        if not (samples := training.dataset.splits.get(split, ())):
            continue
        loader = Loader(samples, spec, batch_size=FEATURE_BATCH, workers=training.workers)
        logits, positions = predictions(model, loader, spec)
        labels = np.array([samples[i].label for i in positions])
        found[f"{split}_images"] = len(labels)
        found[f"{split}_top1"] = round(100 * top_k(logits, labels, 1), 2)
        found[f"{split}_ece"] = round(calibration_error(logits, labels), 4)
        if split == "val":
            found["temperature"] = round(fit_temperature(logits, labels), 4)
    return found | {"skipped": len({*training.skipped})}
