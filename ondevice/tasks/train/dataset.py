"""Images and their classes, split for training and validation, without what would mislead."""

from __future__ import annotations

import csv
import hashlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...config.labels import check_labels
from ...errors import ConfigError, ImageError, printable
from ...image.open import open_image
from .listing import Row, list_images

T = TypeVar("T")

VAL_SHARE = 0.2
IMBALANCE = 3  # the largest class has so many times the images of the smallest


@dataclass(frozen=True)
class Sample:
    """An image file and the index of its class, or the objects in it."""

    path: str
    label: Any


@dataclass(frozen=True)
class Dataset:
    """Images by split ("train", "val", perhaps "test"); ``notes`` are what a user should know.

    ``skipped`` names each image that is left out, and why.
    """

    folder: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Sample, ...]]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def counts(self, split: str = "train") -> list[int]:
        """How many images of a split each class has."""
        count = Counter(sample.label for sample in self.splits[split])
        return [count[i] for i in range(len(self.classes))]

    def said(self, label: Any) -> str:
        """A sample's label in words."""
        return self.classes[label]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is in each split: relative paths, classes, sizes of the files."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for split, samples in sorted(self.splits.items()):
            for sample in samples:
                path = os.path.relpath(sample.path, self.folder)
                size = os.path.getsize(sample.path)
                digest.update(f"{split}\0{path}\0{sample.label}\0{size}\n".encode())
        return digest.hexdigest()


def read_dataset(folder: str | Path, *, val_share: float = VAL_SHARE, seed: int = 0) -> Dataset:
    """The images below ``folder``: in a folder for each class, or as a table lists them.

    Tables are ``labels.csv``, or Hugging Face's ``metadata.csv`` or ``.jsonl``, with columns
    file_name and label. Where there is no folder ``val``, ``val_share`` of each class is set
    aside, chosen by ``seed``. Unreadable images and copies of others are left out.

    Raises ConfigError with all that is wrong.
    """
    folder = Path(folder)
    rows = list_images(folder)
    classes = _classes(rows, folder)
    skipped: list[str] = []
    rows = _without_copies(_readable(rows, skipped), skipped)
    splits = _split(rows, classes, val_share, seed)
    if problems := _problems(splits, classes):
        raise ConfigError(f"{folder}: {'; '.join(problems)}{why_few(skipped)}")
    dataset = Dataset(folder, classes, splits, skipped=tuple(skipped))
    return Dataset(folder, classes, splits, tuple(_notes(dataset)), tuple(skipped))


def _classes(rows: Sequence[Row], folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted({row.label for row in rows}))
    problems = []
    if len(classes) < 2:
        found = f"one class, {printable(classes[0])}" if classes else "no images"
        problems.append(f"has {found}; two classes or more are needed")
    folded = defaultdict(list)
    for name in classes:
        folded[name.casefold()].append(printable(name))
    problems += [
        f"classes {', '.join(names)} differ by case only"
        for names in folded.values()
        if len(names) > 1
    ]
    try:
        check_labels(classes, len(classes), str(folder))
    except ConfigError as error:
        odd = [printable(name) for name in classes if not name.isprintable()]
        named = f" ({', '.join(odd[:8])})" if odd else ""  # their numbers are not known yet
        problems.append(f"{str(error).removeprefix(f'{folder}: ')}{named}")
    if problems:
        raise ConfigError(f"{folder}: {'; '.join(problems)}")
    return classes


def _in_parallel(function: Callable[[str], T], rows: Sequence[Row]) -> Iterable[tuple[Row, T]]:
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # PIL's, here: threads share the filters
        yield from zip(rows, pool.map(lambda row: function(row.path), rows), strict=True)


def _readable(rows: Sequence[Row], skipped: list[str]) -> list[Row]:
    kept = []
    for row, problem in _in_parallel(_why_unusable, rows):
        skipped += [problem] if problem else []
        kept += [] if problem else [row]
    return kept


def _why_unusable(path: str) -> str:
    """What the header of a file says against it; damage further on is found when it is read."""
    from PIL import Image

    try:
        with Image.open(path) as image:  # which refuses more pixels than it would decode
            if image.format != "EPS":
                return ""
    except Exception:  # PIL's plugins raise nearly anything; the reason is found below
        pass
    try:
        open_image(path)
    except ImageError as error:
        return str(error)
    return ""


_KEEP_FIRST = {"test": 0, "val": 1, "": 2, "train": 3}  # of copies in several splits


def _without_copies(rows: Sequence[Row], skipped: list[str]) -> list[Row]:
    """One of the files with the same bytes; none where they are said to show two classes."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row, digest in _in_parallel(_digest, rows):
        groups[digest].append(row)
    kept = set()
    for group in groups.values():
        first, *copies = sorted(group, key=lambda row: _KEEP_FIRST[row.split])
        if len({row.label for row in group}) > 1:
            paths = ", ".join(printable(row.path) for row in group)
            skipped.append(f"{paths}: the same image in classes that differ")
            continue
        kept.add(first)
        skipped += [f"{printable(c.path)} is a copy of {printable(first.path)}" for c in copies]
    return [row for row in rows if row in kept]


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SPLIT_FILE = "split.csv"  # of a saved model: the images that it was made with


def write_split(dataset: Dataset, folder: Path) -> None:
    """Which image is in which split, with the SHA-256 of its file. Raises OSError."""
    samples = [(split, s) for split, own in dataset.splits.items() for s in own]
    with (folder / SPLIT_FILE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("file_name", "label", "split", "sha256"))
        for split, sample in samples:
            path = os.path.relpath(sample.path, dataset.folder)
            row = (path, dataset.said(sample.label), split, _digest(sample.path))
            table.writerow(os.fsencode(text).decode("utf-8", "replace") for text in row)


def unseen(samples: Sequence[Sample], model: Path) -> list[Sample]:
    """Those of ``samples`` that the saved ``model`` was not trained on, as far as it says."""
    path = model / SPLIT_FILE
    if not path.is_file():
        return list(samples)
    with path.open(newline="", encoding="utf-8") as file:
        seen = {row["sha256"] for row in csv.DictReader(file) if row["split"] == "train"}

    def digest_of(sample: Sample) -> str:
        try:
            return _digest(sample.path)
        except OSError:
            return ""  # whoever reads the image says why it cannot be read

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(pool.map(digest_of, samples))
    return [s for s, digest in zip(samples, digests, strict=True) if digest not in seen]


def _split(
    rows: Sequence[Row], classes: Sequence[str], val_share: float, seed: int
) -> dict[str, tuple[Sample, ...]]:
    """By the rows' own splits; a share of each class of the others is for validation."""
    index = {name: i for i, name in enumerate(classes)}
    found: dict[str, list[Sample]] = {"train": [], "val": []}
    for row in rows:
        found.setdefault(row.split or "train", []).append(Sample(row.path, index[row.label]))
    if not found["val"]:
        found["val"], found["train"] = _of_each_class(found["train"], val_share, seed)
    return {split: tuple(samples) for split, samples in found.items()}


def set_aside(
    samples: Sequence[Sample], share: float, seed: int
) -> dict[str, tuple[Sample, ...]]:
    """``share`` of the images to validate on; the others to train on; of both at least one."""
    order = np.random.default_rng(seed).permutation(len(samples))
    chosen = {int(i) for i in order[: _count_aside(share, len(samples))]}
    return {
        "train": tuple(s for i, s in enumerate(samples) if i not in chosen),
        "val": tuple(s for i, s in enumerate(samples) if i in chosen),
    }


def _count_aside(share: float, count: int) -> int:
    """How many of ``count`` images are for validation: one or more, and not all if there are
    two."""
    return max(1, min(round(share * count), count - 1))


def _of_each_class(
    samples: Sequence[Sample], share: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """``share`` of each class, and the others; of both at least one, first of the share."""
    by_class: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_class[sample.label].append(sample)
    chosen: set[Sample] = set()
    for label, own in by_class.items():
        rng = np.random.default_rng([seed, label])
        count = _count_aside(share, len(own))
        chosen |= {own[i] for i in rng.permutation(len(own))[:count]}
    return [s for s in samples if s in chosen], [s for s in samples if s not in chosen]


def _problems(splits: Mapping[str, Sequence[Sample]], classes: Sequence[str]) -> list[str]:
    of_split = {split: Counter(s.label for s in samples) for split, samples in splits.items()}
    return [
        f"class {printable(name)} has {_count_text(i, of_split)}; it needs two or more, one of "
        "them to train on"
        for i, name in enumerate(classes)
        if not of_split["train"][i]
    ]


def _count_text(label: int, of_split: Mapping[str, Counter[int]]) -> str:
    total = sum(count[label] for count in of_split.values())
    return "one usable image" if total == 1 else f"{total} usable images, none to train on"


LISTED = 3  # images, of those that are left out


def why_few(skipped: Sequence[str]) -> str:
    """Why some images are left out, for the end of a message that says too few are left."""
    if not skipped:
        return ""
    more = f"; and {len(skipped) - LISTED:,} more" if len(skipped) > LISTED else ""
    return f"; left out: {'; '.join(skipped[:LISTED])}{more}"


def _notes(dataset: Dataset) -> Iterable[str]:
    counts = dict(zip(dataset.classes, dataset.counts(), strict=True))
    low, high = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[high] > IMBALANCE * counts[low]:
        yield (
            f"classes are unequal: {counts[high]:,} images of {printable(high)}, "
            f"{counts[low]:,} of {printable(low)}; --balance weights them"
        )
    absent = [
        n for n, count in zip(dataset.classes, dataset.counts("val"), strict=True) if not count
    ]
    if absent:
        yield f"validation has no image of {', '.join(map(printable, absent))}"
