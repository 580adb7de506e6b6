"""What a better model says of the training images, found once and learned from in all epochs.

Paper: https://arxiv.org/abs/2207.10666 (TinyViT: the largest scores, kept on disk with seeds
of the augmentation)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...config import Preprocess
from ...errors import ConfigError, OnDeviceError, printable
from ...nn.fuse import fuse
from ...weights.output import replacing
from ...weights.safetensors import read_safetensors, write_safetensors
from .augment import Augment
from .dataset import Sample
from .loader import Loader
from .metrics import log_softmax
from .predict import predictions

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

TOP = 10  # classes whose probability is kept
BATCH = 64
SUFFIX = ".teacher.safetensors"


@dataclass(frozen=True)
class Teacher:
    """The ``TOP`` probabilities (views, N, TOP) of N images in several random views, and
    the classes that they are of. An epoch shows one view, the next epoch the next."""

    classes: Array
    probabilities: Array
    count: int

    @property
    def views(self) -> int:
        """How many random views of each image there are."""
        return len(self.classes)

    def targets(self, epoch: int, positions: Array) -> Array:
        """(B, count) probabilities; what is not kept is spread over the other classes."""
        view = epoch % self.views
        kept = self.probabilities[view, positions].astype(np.float64)
        rest = np.maximum(1 - kept.sum(axis=1, keepdims=True), 0)
        others = self.count - kept.shape[1]
        found = np.repeat(rest / max(others, 1), self.count, axis=1)
        np.put_along_axis(found, self.classes[view, positions].astype(np.intp), kept, axis=1)
        return found / found.sum(axis=1, keepdims=True)


def teacher_path(out: Path) -> Path:
    """Where what a teacher says is kept while a model for ``out`` is trained: beside it."""
    return out.with_name(out.name + SUFFIX)


def class_order(teacher: nn.Module, classes: Sequence[str]) -> list[int]:
    """Where the teacher's scores for ``classes`` are. Raises ConfigError if it has others."""
    known = {name: i for i, name in enumerate(teacher.info.class_names)}
    if known.keys() != set(classes) or teacher.info.config.num_classes != len(classes):
        few = ", ".join(map(printable, list(known)[:3])) or "none by name"
        raise ConfigError(
            f"teacher {teacher.info.name} has the classes {few}, … ({len(known)}), not those "
            f"of the images ({len(classes)}): give a model that was trained for these"
        )
    return [known[name] for name in classes]


def ask(
    teacher: nn.Module,
    classes: Sequence[str],
    samples: Sequence[Sample],
    spec: Preprocess,
    *,
    augment: Augment,
    views: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Teacher:
    """What ``teacher`` says of each sample in each view that a student with ``spec`` gets.

    It sees the same view at its own size. Raises ConfigError as ``class_order``.
    """
    order, own = class_order(teacher, classes), teacher.info.preprocess
    network, top = fuse(teacher.eval()), min(TOP, len(classes))
    found = np.zeros((views, len(samples), top), np.uint16)
    probabilities = np.zeros(found.shape, np.float16)
    for view in range(views):
        loader = Loader(
            samples,
            replace(spec, size=own.size),
            batch_size=BATCH,
            augment=augment,
            seed=seed,
            workers=workers,
            shuffled=False,
        )
        logits, positions = predictions(network, loader, own, epoch=view)
        shares = np.exp(log_softmax(logits[:, order].astype(np.float64)))
        best = np.argsort(-shares, axis=1, kind="stable")[:, :top]
        found[view, positions] = best
        probabilities[view, positions] = np.take_along_axis(shares, best, axis=1)
        progress(view + 1, views)
    return Teacher(found, probabilities, len(classes))


def kept_or_asked(path: Path, about: Mapping[str, Any], make: Callable[[], Teacher]) -> Teacher:
    """What is kept at ``path`` of the same images, views and teacher; else made, and kept.

    Raises OutputError if it cannot be written.
    """
    said = json.dumps(about, sort_keys=True)
    try:
        arrays, metadata = read_safetensors(path)
        if metadata["about"] == said:
            classes, shares = (np.array(arrays[k]) for k in ("classes", "probabilities"))
            return Teacher(classes, shares, int(metadata["count"]))
    except (OSError, OnDeviceError, KeyError, ValueError):
        pass  # it is not there, or of another training
    teacher = make()
    found = {"classes": teacher.classes, "probabilities": teacher.probabilities}
    with replacing(path, force=True) as partial:
        write_safetensors(
            partial,
            {name: mx.array(array) for name, array in found.items()},
            {"about": said, "count": str(teacher.count)},
        )
    return teacher
