"""Images with a mask each: a PNG with the number of each pixel's class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError, ImageError, printable
from ...image.files import is_image_name
from ..train.listing import SPLITS

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

MASKS = ("masks", "annotations", "labels")  # folders beside ``images``
BESIDE = "_masks"  # the masks of ``val`` lie in ``val_masks``
NAMES = "classes.txt"
VOID = 255  # pixels that do not count, as most sets have them
UNKNOWN = -2  # in place of a class
TOLD = 5  # examples of one problem
ONE_NUMBER = ("1", "L", "P", "I", "I;16")  # PIL's modes


@dataclass(frozen=True)
class MaskedImage:
    """An image file and that of its mask."""

    path: str
    mask: str

    def read(self, size: tuple[int, int] | None = None) -> Array:
        """The (height, width) numbers of a photo of ``size`` (width, height), int64.

        Raises ImageError for what is no such mask.
        """
        from PIL import Image

        try:
            with Image.open(self.mask) as image:
                mode, given, values = image.mode, image.size, np.asarray(image)
        except Exception as error:  # PIL's plugins raise nearly anything for a broken file
            raise ImageError(f"{printable(self.mask)} cannot be read: {error}") from error
        if mode not in ONE_NUMBER:
            raise ImageError(f"{printable(self.mask)} is {mode}; a mask has a number a pixel")
        if size and given != size:
            sizes = (" x ".join(map(str, each)) for each in (given, size))
            raise ImageError(
                "{} has {} pixels, its photo {}".format(printable(self.mask), *sizes)
            )
        return values.astype(np.int64)

    def classes(self, numbers: Array, size: tuple[int, int] | None = None) -> Array:
        """The same as classes, -1 of what does not count; ``numbers`` are ``class_numbers``.

        Raises ImageError for numbers that mean no class, too.
        """
        values = self.read(size)
        there = numbers[np.clip(values, -1, len(numbers) - 1)]
        if (unknown := np.unique(values[there == UNKNOWN])).size:
            listed = ", ".join(map(str, unknown[:TOLD].tolist()))
            raise ImageError(f"{printable(self.mask)} has {listed}, which is no class's number")
        return there


def class_numbers(names: Sequence[str]) -> Array:
    """For each number in a mask its position among the names that are not empty, -1 if it does
    not count, ``UNKNOWN`` (so is the last one) if it means nothing."""
    numbers = np.full(max(len(names), VOID + 1) + 1, UNKNOWN)
    numbers[VOID] = -1
    kept = np.cumsum([bool(name) for name in names]) - 1
    numbers[: len(names)] = np.where([bool(name) for name in names], kept, -1)
    return numbers


@dataclass(frozen=True)
class MaskSet:
    """Images, and what the numbers in their masks mean: ``names`` are from 0, "" of what does
    not count. Without names they are the numbers of a model's classes. ``notes`` are what a
    user should know."""

    path: Path
    images: tuple[MaskedImage, ...]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_masks(folder: str | Path, prefer: Sequence[str]) -> tuple[MaskSet, str]:
    """The images below ``folder`` that have masks, and their split: the first of ``prefer``
    that there is, or else any. Raises ConfigError with all that is wrong."""
    folder = Path(folder)
    found = _splits(folder)
    split = next(name for name in (*prefer, *found) if name in found)
    places = found[split]
    notes = tuple(_without_images(*places))
    return MaskSet(folder, tuple(_paired(*places)), read_names(folder), notes), split


def read_splits(folder: Path) -> dict[str, list[MaskedImage]]:
    """Those of all splits; "" where there are none. Raises ConfigError with all that is
    wrong."""
    found, problems = {}, []
    for split, places in _splits(folder).items():
        try:
            found[split] = _paired(*places)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))
    return found


def mask_notes(folder: Path) -> list[str]:
    """What a user should know of the masks of all splits."""
    return [note for places in _splits(folder).values() for note in _without_images(*places)]


def has_masks(folder: str | Path) -> bool:
    """Whether a folder has images with masks of the same names."""
    return any(
        {p.stem for p in images.iterdir() if is_image_name(p.name)}
        & {p.stem for p in masks.glob("*.png")}
        for _, (images, masks) in _layout(Path(folder))
    )


def _splits(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Folders of images and of masks, by split.

    Masks are PNG files in ``masks`` beside ``images`` (or in ``annotations``, as ADE20K has
    them), with folders of splits or without; or in ``val_masks`` beside ``val``.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give one with images and masks")
    found: dict[str, tuple[Path, Path]] = {}
    for split, places in _layout(folder):
        if split in found:
            both = " and ".join(printable(each[0].name) for each in (found[split], places))
            raise ConfigError(f"{folder}: {both} are both images for {split}; keep one of them")
        found[split] = places
    if not found:
        raise ConfigError(
            f"{folder} has no masks; expected PNG files in {' or '.join(MASKS)} beside images, "
            f"or in val{BESIDE} beside val"
        )
    return found


def _layout(folder: Path) -> list[tuple[str, tuple[Path, Path]]]:
    return (list(_in_splits(folder)) or list(_beside(folder))) if folder.is_dir() else []


Pairs = Iterable[tuple[str, tuple[Path, Path]]]  # splits, with folders of images and of masks


def _in_splits(folder: Path) -> Pairs:
    images = folder / "images"
    masks = next((folder / name for name in MASKS if (folder / name).is_dir()), None)
    if masks is None or not images.is_dir():
        return
    inside = [path for path in sorted(images.iterdir()) if (masks / path.name).is_dir()]
    for path in inside:
        yield SPLITS.get(path.name.lower(), path.name), (path, masks / path.name)
    if not inside:
        yield "", (images, masks)


def _beside(folder: Path) -> Pairs:
    for masks in sorted(folder.glob(f"*{BESIDE}")):
        name = masks.name.removesuffix(BESIDE)
        if (folder / name).is_dir():
            yield SPLITS.get(name.lower(), name), (folder / name, masks)


def _paired(images: Path, masks: Path) -> list[MaskedImage]:
    """Each image with its mask, by their names. Raises ConfigError for those without."""
    files = sorted(p for p in images.iterdir() if is_image_name(p.name))
    known = {path.stem: path for path in masks.glob("*.png")}
    if lacking := [path.name for path in files if path.stem not in known]:
        more = f" and {len(lacking) - TOLD:,} more" if len(lacking) > TOLD else ""
        names = ", ".join(map(printable, lacking[:TOLD]))
        raise ConfigError(f"{masks} has no masks of {names}{more}")
    if not files:
        raise ConfigError(f"{images} has no images")
    return [MaskedImage(str(path), str(known[path.stem])) for path in files]


def _without_images(images: Path, masks: Path) -> Iterable[str]:
    """A note of the masks that no image has, if there are any."""
    known = {path.stem for path in images.iterdir() if is_image_name(path.name)}
    lone = sorted(path.name for path in masks.glob("*.png") if path.stem not in known)
    if lone:
        more = f" and {len(lone) - TOLD:,} more" if len(lone) > TOLD else ""
        names = ", ".join(map(printable, lone[:TOLD]))
        yield f"{masks}: masks without an image are not used: {names}{more}"


def read_names(folder: Path) -> tuple[str, ...]:
    """What stands in ``classes.txt``, a name a line from number 0; nothing if it is not there.

    Raises ConfigError.
    """
    path = folder / NAMES
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    names = [line.strip() for line in text.splitlines()]
    if alike := sorted({name for name in names if name and names.count(name) > 1}):
        raise ConfigError(f"{path} has {', '.join(map(printable, alike))} more than once")
    return tuple(names)
