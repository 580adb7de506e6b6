"""From a folder of images to a saved model: tasks and methods, and what is written."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...cpu import blas
from ...errors import ConfigError
from ...weights.folder import save_model
from ...weights.hash import weights_hash
from ...weights.output import replacing
from ..detection.coco_files import is_coco
from ..load import load
from ..ranks import Ranks
from ..segmentation.masks import has_masks
from .augment import Augment
from .classification import Classification, class_weights
from .dataset import Dataset, read_dataset, write_split
from .fit import Fit
from .history import Epoch, write_history
from .loader import Loader
from .metrics import top_k
from .near import near_notes
from .options import MODELS, Options, augment_for, check, check_task, full_settings, method_for
from .predict import predictions
from .probe import Linear, class_means, nearest_neighbours, regression
from .start import head_input, linear, new_model
from .state import State, load_state, state_path
from .task import Task
from .teacher import Teacher, ask, class_order, kept_or_asked, teacher_path
from .trainer import Settings, soft_cross_entropy

if TYPE_CHECKING:
    from .zoom import Zoom

    Array = np.ndarray[Any, Any]

logger = logging.getLogger("ondevice")

FEATURE_BATCH = 32


@dataclass
class Training:
    """What a training is about and what it has found, for all methods."""

    model: nn.Module
    dataset: Dataset
    settings: Settings
    options: Options
    augment: Augment | Zoom
    task: Task
    out: Path
    epochs: list[Epoch] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    network: nn.Module | None = None  # the model as it will be rounded
    teacher: nn.Module | None = None

    def __post_init__(self) -> None:
        self.skipped = list(self.dataset.skipped)
        self.ranks = Ranks(self.options.group, "--resume goes on from the last epoch")

    @property
    def about(self) -> dict[str, Any]:
        """What has to be the same when a training goes on."""
        rounding = self.options.rounding
        return {
            "images": self.dataset.fingerprint,
            "weights": weights_hash(self.model),
            "input": self.model.info.preprocess.to_dict(),
            "augment": asdict(self.augment),
            "ranks": self.ranks.size,
            "recipe": rounding.name if rounding else "",
            "teacher": self.teacher and weights_hash(self.teacher),
            "views": self.options.teacher_views if self.teacher else 0,
            **asdict(self.settings),
        }


def train(
    images: str | Path,
    out: str | Path,
    *,
    on_skipped: Callable[[str], object] | None = None,
    **options: Any,
) -> nn.Module:
    """Train a model on the folder ``images``, save it in the folder ``out``, return it.

    Images lie in a folder for each class; with ``task="detect"`` they have boxes in COCO's
    form, with ``task="segment"`` masks.

    ``options`` are the fields of ``Options`` and ``Settings``. ``model.info.metrics`` has what
    was measured on the validation images, ``out`` a history of the epochs as well.
    ``on_skipped`` is called with the reason for each image that is left out.

    Raises ConfigError with all that is wrong, OutputError, TrainingError.
    """
    own = {f.name: options.pop(f.name) for f in fields(Options) if f.name in options}
    given = Options(**own)
    chosen = own.keys() | options.keys()
    check_task(given, chosen)
    given = replace(given, model=given.model or MODELS[given.task])
    settings = full_settings(options, given)
    check(given, Path(out))
    prepare = PREPARE[given.task]
    training, method = prepare(Path(images), Path(out), given, settings, chosen)
    RUN[method](training)
    if training.ranks.rank == 0:
        _finish(training, method)
    training.ranks.wait()
    if on_skipped:
        for problem in dict.fromkeys(training.skipped):
            on_skipped(problem)
    return training.model


def _classifier(
    images: Path, out: Path, options: Options, settings: Settings, chosen: Set[str]
) -> tuple[Training, str]:
    """All that is read before a training begins, and its method. ``chosen`` are the names of
    the options and settings that were given."""
    if has_masks(images):  # whose two folders would look like two classes
        raise ConfigError(f"{images} has images with masks: are they for --task segment?")
    try:
        dataset = read_dataset(images, val_share=options.val_share, seed=settings.seed)
    except ConfigError as error:
        boxes = "; it has boxes: are they for --task detect?" if is_coco(images) else ""
        raise ConfigError(f"{error}{boxes}") from error
    method = method_for(options, dataset, chosen)
    blas.advise()
    model = new_model(
        options.model,
        dataset.classes,
        size=options.size,
        pretrained=options.pretrained,
        adapter=settings.adapter,
        seed=settings.seed,
    )
    for note in (*dataset.notes, *near_notes(dataset.splits)):
        logger.warning(note)
    augment = augment_for(options, dataset, model.info)
    loss, spec = options.loss or soft_cross_entropy, model.info.preprocess
    task = Classification(dataset, settings, augment, spec, loss, workers=options.workers)
    training = Training(model, dataset, settings, options, augment, task, out)
    if options.teacher:
        training.teacher = load(options.teacher)
        class_order(training.teacher, dataset.classes)
    return training, method


def _on_backbone(
    folder: str,
    images: Path,
    out: Path,
    options: Options,
    settings: Settings,
    chosen: Set[str],
) -> tuple[Training, str]:
    """The same of a task in another ``folder``, which has one method."""
    parts = import_module(f"..{folder}.prepare", __package__).PARTS
    blas.advise()
    model, dataset, augment, task = parts.prepare(images, options, settings)
    for note in (*dataset.notes, *near_notes(dataset.splits)):
        logger.warning(note)
    return Training(model, dataset, settings, options, augment, task, out), "full"


PREPARE: dict[str, Callable[..., tuple[Training, str]]] = {
    "classify": _classifier,
    "detect": partial(_on_backbone, "detection"),
    "segment": partial(_on_backbone, "segmentation"),
}


def _full(training: Training) -> None:
    """All weights, or adapters and the head."""
    path, options = state_path(training.out), training.options
    if options.resume and not path.exists():
        logger.warning(f"{path} does not exist: training starts from the beginning")
    about = training.about
    state = load_state(path, about) if options.resume else State(about)
    ranks, settings = training.ranks, training.settings
    said = json.dumps([about, state.step]).encode()
    ranks.agree(hashlib.sha256(said).digest(), "images, models, options or states")
    if training.teacher and isinstance(training.task, Classification):
        training.task.teacher = _asked(training)
    fit = Fit(
        training.model,
        training.dataset,
        replace(settings, batch_size=settings.batch_size // ranks.size),
        training.augment,
        training.task,
        state,
        path,
        options.workers,
        options.callbacks,
        options.rounding,
        ranks,
    )
    training.epochs = fit().epochs
    training.skipped += fit.skipped
    if state.recipe:
        training.network = fit.trainer.inference()
        training.model.info = replace(training.model.info, recipe=state.recipe)


def _asked(training: Training) -> Teacher:
    """What the teacher says of the training images: kept on disk while training goes on."""
    teacher, options, about = training.teacher, training.options, training.about
    augment = training.augment
    assert teacher is not None
    assert isinstance(augment, Augment)
    names = ("images", "input", "augment", "teacher", "views", "seed")

    def progress(done: int, total: int) -> None:
        for callback in options.callbacks:
            callback.on_view(done, total)

    def make() -> Teacher:
        return ask(
            teacher,
            training.dataset.classes,
            training.dataset.splits["train"],
            training.model.info.preprocess,
            augment=augment,
            views=options.teacher_views,
            seed=training.settings.seed,
            workers=options.workers,
            progress=progress,
        )

    wanted = {key: about[key] for key in names}
    if training.ranks.rank:
        training.ranks.wait()  # rank 0 writes what the others read, if they share a disk
    found = kept_or_asked(teacher_path(training.out), wanted, make)
    if training.ranks.rank == 0:
        training.ranks.wait()
    return found


def _features(training: Training, split: str) -> tuple[Array, Array]:
    """(N, C) vectors that the last layer reads, and the (N,) classes."""
    model, samples = training.model, training.dataset.splits[split]
    spec = model.info.preprocess
    loader = Loader(samples, spec, batch_size=FEATURE_BATCH, workers=training.options.workers)
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


RUN: dict[str, Callable[[Training], None]] = {
    "knn": _knn,
    "probe": _probe,
    "full": _full,
    "adapter": _full,
}


def _finish(training: Training, method: str) -> None:
    """Measure the model as it will be saved, and save it; the state is then of no use."""
    model = training.model
    training.metrics = {"method": method, **training.metrics, **_measured(training)}
    counts = ", ".join(
        f"{len(s):,} for {name}" for name, s in training.dataset.splits.items() if s
    )
    said = f"{model.info.provenance} Method {method} on images of one's own: {counts}."
    model.info = replace(model.info, metrics=training.metrics, provenance=said)
    with replacing(training.out, force=training.options.force, marker="config.json") as partial:
        save_model(model, partial)
        write_split(training.dataset, partial)
        if training.epochs:
            write_history(training.epochs, partial)
    for path in (state_path(training.out), teacher_path(training.out)):
        path.unlink(missing_ok=True)


def _measured(training: Training) -> dict[str, Any]:
    """What the task measures on the validation images, and on those for a test."""
    found: dict[str, Any] = {}
    for split in ("val", "test"):
        if training.dataset.splits.get(split):
            found |= training.task.measure(training.model, split)
            if training.network:
                found |= training.task.measure_rounded(training.network, split)
    return found | {"skipped": len({*training.skipped})}
