"""Images with masks, split for training and validation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...config.labels import check_labels
from ...errors import ConfigError, ImageError, printable
from ...image.open import image_size
from ..train.dataset import Dataset, Sample, set_aside, why_few
from .masks import (
    NAMES,
    TOLD,
    VOID,
    MaskedImage,
    class_numbers,
    mask_notes,
    read_names,
    read_splits,
)

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

USED = ("train", "val", "test")  # splits


@dataclass(frozen=True)
class Mask:
    """Of an image: SHA-256 of the file, and how many pixels each class has."""

    file: MaskedImage = field(repr=False)
    names: tuple[str, ...] = field(repr=False)  # of the numbers in it, "" of what counts not
    digest: str
    pixels: tuple[int, ...]

    def classes(self) -> Array:
        """(height, width) positions in the set's classes, -1 of what does not count.

        Raises ImageError if the file is not what it was.
        """
        return self.file.classes(_numbers(self.names))


@cache
def _numbers(names: tuple[str, ...]) -> Array:
    return class_numbers(names)


@dataclass(frozen=True)
class MaskDataset(Dataset):
    """A sample's label is its ``Mask``."""

    def counts(self, split: str = "train") -> list[int]:
        """How many pixels of each class are in a split."""
        pixels = [sample.label.pixels for sample in self.splits[split]]
        return np.array(pixels, int).reshape(-1, len(self.classes)).sum(axis=0).tolist()

    def said(self, label: Mask) -> str:
        """The classes that are there."""
        return " ".join(c for c, n in zip(self.classes, label.pixels, strict=True) if n)


def read_mask_dataset(folder: str | Path, *, val_share: float, seed: int = 0) -> MaskDataset:
    """The images of ``folder`` that have masks, as ``read_splits`` finds them; ``classes.txt``
    names the numbers.

    Where there is no validation, ``val_share`` of the images is set aside, chosen by ``seed``.
    Photos that cannot be read are left out. Raises ConfigError with all that is wrong with
    masks.
    """
    folder = Path(folder)
    found = read_splits(folder)
    names = read_names(folder)
    classes = _classes(folder, names)
    skipped, problems = list[str](), list[str]()
    splits = {
        split or "train": tuple(_samples(images, names, skipped, problems))
        for split, images in found.items()
        if split in ("", *USED)
    }
    if problems:
        raise ConfigError(_listed(folder, names, problems))
    if not splits.get("val"):
        splits |= set_aside(splits.get("train", ()), val_share, seed)
    unused = (
        f"{folder}: {printable(split)} is neither of {', '.join(USED)}: not used"
        for split in found
        if split not in ("", *USED)
    )
    notes = (*unused, *mask_notes(folder))
    dataset = MaskDataset(folder, classes, splits, notes, tuple(skipped))
    _check(dataset)
    return dataset


def _classes(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The names that are some."""
    classes = tuple(name for name in names if name)
    if len(classes) < 2:
        found = f"one class, {printable(classes[0])}" if classes else "no class"
        raise ConfigError(
            f"{folder / NAMES} names {found}; expected a name a line for the numbers from 0 in "
            "the masks, two or more with that of the background"
        )
    check_labels(classes, len(classes), str(folder))
    return classes


def _samples(
    images: Sequence[MaskedImage],
    names: tuple[str, ...],
    skipped: list[str],
    problems: list[str],
) -> Iterable[Sample]:
    """Those that can be used; why photos cannot be, and what is wrong with masks."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(partial(_sample, names=names), images)
        for sample, skip, problem in found:
            skipped += [skip] if skip else []
            problems += [problem] if problem else []
            if sample:
                yield sample


def _sample(image: MaskedImage, names: tuple[str, ...]) -> tuple[Sample | None, str, str]:
    try:
        size = image_size(image.path)
    except ImageError as error:
        return None, str(error), ""
    try:
        there = image.classes(_numbers(names), size)
        digest = hashlib.sha256(Path(image.mask).read_bytes()).hexdigest()
    except (ImageError, OSError) as error:
        return None, "", str(error)
    count = sum(map(bool, names))
    pixels = np.bincount(there[there >= 0], minlength=count)
    return Sample(image.path, Mask(image, names, digest, tuple(pixels.tolist()))), "", ""


def _listed(folder: Path, names: Sequence[str], problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - TOLD:,} more" if len(problems) > TOLD else ""
    return (
        f"{'; '.join(problems[:TOLD])}{more}; {folder / NAMES} names the numbers 0 to "
        f"{len(names) - 1}, and {VOID} does not count"
    )


def _check(dataset: MaskDataset) -> None:
    """Raises ConfigError if there is nothing to learn, or to measure with."""
    for split in ("train", "val"):
        if not sum(dataset.counts(split)):
            count = len(dataset.splits[split])
            raise ConfigError(
                f"{dataset.folder}: none of the {count:,} usable images for {split} has a "
                f"pixel that counts{why_few(dataset.skipped)}"
            )
    counts: Mapping[str, int] = dict(zip(dataset.classes, dataset.counts(), strict=True))
    if absent := [printable(name) for name, count in counts.items() if not count]:
        raise ConfigError(
            f"{dataset.folder}: no pixel of {', '.join(absent[:8])} to train on; empty its "
            f"line in {NAMES}, or add images"
        )
