"""Images that look the same in training and in validation: what is measured is then too good.

The hash is of differences between neighbouring pixels of a small grey copy ("dHash").
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import printable
from .dataset import Sample

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

SIDE = 16  # the hash has SIDE * SIDE bits
MAX_BITS = 12  # that differ between an image and its copy: resized, compressed anew
MIN_RANGE = 16  # grey values from the darkest to the brightest: less has no structure
LISTED = 10  # pairs that are named
ROWS = 256  # compared with all others at once


def near_duplicates(splits: Mapping[str, Sequence[Sample]]) -> list[tuple[str, str]]:
    """Pairs of a file to validate or test on and the training file that looks most like it.

    What cannot be read, or is of one colour, is in none.
    """
    train, known = _hashes(splits.get("train", ()))
    return [
        (path, train[nearest])
        for split in ("val", "test")
        for path, nearest in _pairs(*_hashes(splits.get(split, ())), known)
    ]


def near_notes(splits: Mapping[str, Sequence[Sample]]) -> Iterator[str]:
    """What a user should know of ``near_duplicates``, which stay where they are."""
    if found := near_duplicates(splits):
        listed = ", ".join(" like ".join(map(printable, pair)) for pair in found[:LISTED])
        more = f", and {len(found) - LISTED:,} more" if len(found) > LISTED else ""
        yield (
            f"{len(found):,} images to measure on look like images to train on: what is "
            f"measured is too good: {listed}{more}"
        )


def _pairs(paths: list[str], hashes: Array, known: Array) -> Iterator[tuple[str, int]]:
    for first in range(0, len(paths) if len(known) else 0, ROWS):
        some = hashes[first : first + ROWS]
        bits = np.zeros((len(some), len(known)), np.uint16)
        for word in range(known.shape[1]):
            bits += np.bitwise_count(some[:, None, word] ^ known[None, :, word])
        nearest = bits.argmin(axis=1)
        for i in np.flatnonzero(bits.min(axis=1) <= MAX_BITS):
            yield paths[first + i], int(nearest[i])


def _hashes(samples: Sequence[Sample]) -> tuple[list[str], Array]:
    """The paths that have a hash, and (N, words) uint64."""
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # PIL's, here: threads share the filters
        found = list(pool.map(_hash, [sample.path for sample in samples]))
    usable = [i for i, value in enumerate(found) if value is not None]
    words = SIDE * SIDE // 64
    table = np.array([found[i] for i in usable], np.uint64).reshape(len(usable), words)
    return [samples[i].path for i in usable], table


def _hash(path: str) -> Array | None:
    """(words,) uint64; None of what has none."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image.draft("L", (4 * SIDE, 4 * SIDE))  # JPEG is decoded at an eighth of its size
            grey = ImageOps.exif_transpose(image).convert("L")
            small = grey.resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    except Exception:  # PIL's plugins raise nearly anything; training names what is damaged
        return None
    values = np.asarray(small, np.int16)
    if values.max() - values.min() < MIN_RANGE:
        return None
    return np.packbits(values[:, 1:] > values[:, :-1]).view(np.uint64)
