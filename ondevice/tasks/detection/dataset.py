"""Images with boxes, split for training and validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...config.labels import check_labels
from ...errors import ConfigError, ImageError, printable
from ...image.open import image_size
from ..train.dataset import Dataset, Sample, set_aside, why_few
from .augment import Objects
from .coco import CocoImage, CocoSet, read_coco
from .coco_files import annotation_files


@dataclass(frozen=True)
class BoxDataset(Dataset):
    """A sample's label are its ``Objects``; by its path ``truth`` has all that is said of it,
    ``sizes`` its width and height."""

    truth: Mapping[str, CocoImage] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def counts(self, split: str = "train") -> list[int]:
        """How many objects of each class are in a split."""
        found = [c for sample in self.splits[split] for c, *_ in sample.label]
        return np.bincount(np.array(found, int), minlength=len(self.classes)).tolist()

    def said(self, label: Objects) -> str:
        """The classes of the objects, each once."""
        return " ".join(sorted({self.classes[c] for c, *_ in label}))


def read_boxes(folder: str | Path, *, val_share: float, seed: int = 0) -> BoxDataset:
    """The images of ``folder`` and their boxes in COCO's form, as ``annotation_files`` finds
    them.

    Where there is no validation, ``val_share`` of the images is set aside, chosen by ``seed``.
    Images that cannot be read, or are of another size than their annotations, are left out.
    Crowds are measured with, but not trained on. Raises ConfigError with all that is wrong.
    """
    folder = Path(folder)
    sets = {
        split or "train": read_coco(path) for split, path in annotation_files(folder).items()
    }
    classes = _classes(folder, sets)
    skipped: list[str] = []
    sizes = _sizes(sets, skipped)
    splits = {split: _samples(own, sizes) for split, own in sets.items()}
    if not splits.get("val"):
        splits |= set_aside(splits.get("train", ()), val_share, seed)
    truth = {image.path: image for own in sets.values() for image in own.images}
    notes = tuple(f"{own.path}: {note}" for own in sets.values() for note in own.notes)
    dataset = BoxDataset(folder, classes, splits, notes, tuple(skipped), truth, sizes)
    _check(dataset)
    return dataset


def _classes(folder: Path, sets: Mapping[str, CocoSet]) -> tuple[str, ...]:
    """Those of all splits, which have to be the same."""
    first, *others = sets.values()
    for other in others:
        if other.classes != first.classes:
            differ = {*first.classes} ^ {*other.classes} or {"their order"}
            named = ", ".join(sorted(map(printable, differ))[:8])
            raise ConfigError(f"{first.path} and {other.path} differ in their classes: {named}")
    check_labels(first.classes, len(first.classes), str(folder))
    return first.classes


def _sizes(sets: Mapping[str, CocoSet], skipped: list[str]) -> dict[str, tuple[int, int]]:
    """Of all images that can be used, by their paths."""
    found = {}
    for image in (image for own in sets.values() for image in own.images):
        try:
            size = image_size(image.path)
            image.check_size(size)
        except ImageError as error:
            skipped.append(str(error))
        else:
            found[image.path] = size
    return found


def _samples(own: CocoSet, sizes: Mapping[str, tuple[int, int]]) -> tuple[Sample, ...]:
    usable = ((image, sizes.get(image.path)) for image in own.images)
    return tuple(Sample(i.path, objects(i, size)) for i, size in usable if size)


def objects(image: CocoImage, size: tuple[int, int]) -> Objects:
    """What can be learned from an image of ``size`` (width, height): all but crowds, as far as
    boxes lie inside."""
    ends = image.boxes[:, :2] + image.boxes[:, 2:]
    low, high = (np.clip(corner / size, 0, 1) for corner in (image.boxes[:, :2], ends))
    fine = ~image.crowd & (high > low).all(axis=1)
    boxes = np.concatenate([(low + high) / 2, high - low], axis=1)[fine].round(6)
    return tuple(
        (int(c), float(x), float(y), float(w), float(h))
        for c, (x, y, w, h) in zip(image.classes[fine], boxes, strict=True)
    )


def _check(dataset: BoxDataset) -> None:
    """Raises ConfigError if there is nothing to learn, or to measure with."""
    for split in ("train", "val"):
        if not sum(dataset.counts(split)):
            count = len(dataset.splits[split])
            raise ConfigError(
                f"{dataset.folder}: none of the {count:,} usable images for {split} has a box"
                f"{why_few(dataset.skipped)}"
            )
    counts = dict(zip(dataset.classes, dataset.counts(), strict=True))
    if absent := [printable(name) for name, count in counts.items() if not count]:
        raise ConfigError(
            f"{dataset.folder}: no box of {', '.join(absent[:8])} to train on; leave the "
            "category out, or add images"
        )
