"""What a training is asked for, and what of it does not go together."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from ...config import ModelInfo, check_numbers
from ...errors import ConfigError
from ...nn.rounding import Rounding
from ...weights.output import check_free
from .augment import AUGMENTS, Augment
from .dataset import VAL_SHARE, Dataset
from .fit import Callback
from .start import check_size, check_start
from .state import check_no_state, state_path
from .trainer import Loss, Settings

if TYPE_CHECKING:
    from .zoom import Zoom

logger = logging.getLogger("ondevice")

MIX_FROM = 1000  # images to train on: with fewer, mixed ones teach too little
FULL_FROM = 200  # images to train on: with fewer, a head alone is the safer choice
ADAPTER_RANK = 8
ROUNDED_LR = 3e-5  # where all epochs round: what is trained already is only to find its levels


@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``train`` takes beside its ``Settings``.

    ``task`` is "classify", of a folder for each class, "detect", of boxes in COCO's form, or
    "segment", of masks. ``model`` is where to start, by default that of ``MODELS``; the
    backbone of a new one to detect or segment has the weights of the classifier ``backbone``.
    ``method`` is "knn" (the nearest class mean, no training), "probe" (a head on features that
    stay), "full" (all weights), "adapter" (a head and bottlenecks beside weights that stay) or
    "auto". ``resume`` goes on with what was killed, to the same weights. ``augment`` says how
    images are changed for "full" and "adapter": an ``Augment``, or the name of one of
    ``AUGMENTS``; by default "usual", and of ``MIX_FROM`` images or more a fifth of the batches
    is mixed. Without ``flip`` none is mirrored. ``train_size`` is the
    side in pixels of what "full" and "adapter" train on, where it is not that of the input.
    ``rounding``, which ``converters.rounding`` makes of a recipe, is that of the last
    ``qat_epochs``; by default of a fifth of all. Where all epochs round, ``lr`` is 3e-5 by
    default. ``teacher``, a model's name or folder, says what is learned instead of the labels:
    of ``teacher_views`` random views of each image, found once. Its views are not mixed. The
    processes of a ``group`` share each batch, and rank 0 writes.
    """

    task: str = "classify"
    model: str = ""
    backbone: str = ""
    method: str = "auto"
    size: int | None = None
    pretrained: bool = True
    val_share: float = VAL_SHARE
    resume: bool = False
    force: bool = False
    workers: int | None = None
    augment: Augment | Zoom | str | None = None
    flip: bool = True
    train_size: int | None = None
    loss: Loss | None = None
    callbacks: Sequence[Callback] = ()
    rounding: Rounding | None = None
    teacher: str = ""
    teacher_views: int = 8
    group: mx.distributed.Group | None = None


METHODS = ("knn", "probe", "full", "adapter")
OF_FULL = {  # options and settings that a head alone has no use for
    *("epochs", "batch_size", "accumulate", "lr", "warmup", "weight_decay", "layer_decay"),
    *("label_smoothing", "drop_path", "ema", "patience", "precision", "augment", "flip"),
}
MODELS = {  # to start from
    "classify": "shvit_s1",
    "detect": "light_detr_shvit_nano",
    "segment": "light_fpn_shvit_nano",
}
OF_CLASSIFIERS = {
    *("adapter", "balance", "label_smoothing", "precision", "train_size"),
    *("rounding", "qat_epochs", "teacher", "teacher_views"),
}
NOT_FOR = {  # options and settings that another task has
    "classify": {"backbone"},
    "detect": OF_CLASSIFIERS,
    "segment": OF_CLASSIFIERS,
}


def check_task(options: Options, given: Set[str]) -> None:
    """Raises ConfigError for an unknown task, and what is ``given`` but not for it."""
    if options.task not in NOT_FOR:
        raise ConfigError(f"no task {options.task!r}; there are {', '.join(NOT_FOR)}")
    if others := sorted(given & NOT_FOR[options.task]):
        raise ConfigError(f"{', '.join(others)}: not for task {options.task}")
    if options.task != "classify" and options.method not in ("auto", "full"):
        raise ConfigError(
            f"task {options.task} is trained by method full, not {options.method}"
        )
    if options.backbone and not options.pretrained:
        raise ConfigError(
            f"backbone {options.backbone} has weights, and random ones are wanted: give one of "
            "--backbone and --random-weights"
        )


def check(options: Options, out: Path) -> None:
    """Raises what is wrong before an image is read."""
    check_numbers(options)
    check_free(out.absolute(), force=options.force, marker="config.json")
    if not (options.resume or options.force):
        check_no_state(state_path(out))
    if not 0 < options.val_share < 1:
        raise ConfigError(f"val_share is {options.val_share}, expected a share between 0 and 1")
    method = options.method
    if method not in ("auto", *METHODS):
        raise ConfigError(f"no method {method!r}; there are auto, {', '.join(METHODS)}")
    if options.task == "classify":
        check_start(options.model)


def augment_for(options: Options, dataset: Dataset, info: ModelInfo) -> Augment:
    """How images of a classifier are changed. Raises ConfigError."""
    if options.train_size:
        check_size("train_size", options.train_size, info)
    many = len(dataset.splits["train"]) >= MIX_FROM
    given = options.augment
    if isinstance(given, str):
        if given not in AUGMENTS:
            raise ConfigError(f"no augment {given!r}; there are {', '.join(AUGMENTS)}")
        named = replace(AUGMENTS[given], mix=0.0) if options.teacher else AUGMENTS[given]
        given = named if given != "usual" else None
    if not isinstance(given, Augment | None):
        raise ConfigError(f"a {type(given).__name__} is not for task classify")
    augment = given or Augment(mix=0.2 if many and not options.teacher else 0.0)
    if augment.mix and options.teacher:
        raise ConfigError(f"mix is {augment.mix}, but a teacher sees each image by itself: 0")
    size = options.train_size or augment.size
    return replace(augment, flip=augment.flip and options.flip, size=size)


def full_settings(given: dict[str, Any], options: Options) -> Settings:
    """The settings that are ``given``, or follow from the options. Raises ConfigError."""
    try:
        settings = Settings(**given)
    except TypeError as error:
        raise ConfigError(f"no such setting: {error}") from error
    if options.method == "adapter" and not options.pretrained:
        raise ConfigError("adapters are for weights that stay, not for random ones: use full")
    if options.method == "adapter" and not settings.adapter:
        settings = replace(settings, adapter=ADAPTER_RANK)
    if settings.adapter and options.method != "adapter":
        raise ConfigError(f"adapter={settings.adapter} goes with --method adapter")
    ranks = options.group.size() if options.group else 1
    if settings.batch_size % (ranks * settings.accumulate):
        raise ConfigError(
            f"batch_size is {settings.batch_size}, expected a multiple of {ranks} ranks times "
            f"accumulate={settings.accumulate}"
        )
    if options.teacher_views < 1:
        raise ConfigError(f"teacher_views is {options.teacher_views}, expected 1 or more")
    if settings.qat_epochs and not options.rounding:
        raise ConfigError("qat_epochs are of weights rounded by a recipe: give one")
    if options.rounding and not settings.qat_epochs:
        settings = replace(settings, qat_epochs=max(1, settings.epochs // 5))
    if settings.qat_epochs == settings.epochs and "lr" not in given:
        settings = replace(settings, lr=ROUNDED_LR)
    new_norms = not options.pretrained or options.task != "classify"
    if settings.frozen_norms is None and new_norms:
        return replace(settings, frozen_norms=False)
    return settings


def method_for(options: Options, dataset: Dataset, given: Set[str] = frozenset()) -> str:
    """What "auto" means for these images. Raises ConfigError for what does not go with it.

    ``given`` are the names of the options and settings that the caller chose.
    """
    method, pretrained = options.method, options.pretrained
    if method == "auto":
        count = len(dataset.splits["train"])
        needed = options.rounding or options.teacher or not pretrained
        method = "full" if count >= FULL_FROM or needed else "probe"
        logger.info("%d images to train on: method %s", count, method)
        if method == "probe" and (others := sorted(given & OF_FULL)):
            raise ConfigError(
                f"{', '.join(others)}: of --method full or adapter; for {count} images to "
                f"train on, fewer than {FULL_FROM}, auto is probe: give the method"
            )
    if method in ("full", "adapter"):
        return method
    if not pretrained:
        raise ConfigError(f"random weights have no features for {method}; use full")
    if options.resume:
        raise ConfigError(
            f"--resume goes with --method full or adapter; {method} takes seconds"
        )
    several = options.group is not None and options.group.size() > 1
    for name in ("rounding", "teacher", "train_size", "loss", "group"):
        if getattr(options, name) and (name != "group" or several):
            raise ConfigError(f"a {name} goes with --method full or adapter, not {method}")
    if others := sorted(given & OF_FULL):
        raise ConfigError(f"{', '.join(others)}: of --method full or adapter, not {method}")
    return method
