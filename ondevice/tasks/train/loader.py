"""Batches of images, decoded and changed by threads while the model is at work."""

from __future__ import annotations

import os
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ...config import Preprocess
from ...errors import ImageError
from ...image.open import open_image
from ...image.preprocess import resize_and_crop
from .dataset import Sample

if TYPE_CHECKING:
    from PIL import Image

    Array = np.ndarray[Any, Any]

AHEAD = 2  # batches that are made before they are asked for
KEEP = 512 << 20  # bytes of decoded images that are kept from one epoch to the next


class Changes(Protocol):
    """How images are changed, and what is said of them with them: such as ``Augment``."""

    def labelled(
        self, image: Image.Image, label: Any, spec: Preprocess, rng: np.random.Generator
    ) -> tuple[Array, Any]:
        """An RGB image as (size, size, 3) uint8 pixel values, and its label."""


class Batch(NamedTuple):
    """(B, size, size, 3) uint8 pixel values, the B labels and (B,) positions of the samples."""

    pixels: Array
    labels: list[Any]
    positions: Array


class Loader:
    """The samples as batches; ``failed`` has the reason for each image that is left out.

    The seed, the epoch and an image's position decide all that is random about it: batches are
    the same on any number of threads. With ``views``, an epoch's images are those of ``views``
    epochs before. By default what is augmented is ``shuffled``. With a ``rank`` of several
    ``ranks`` it has a share of each batch, ``batch_size`` images.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: Preprocess,
        *,
        batch_size: int,
        augment: Changes | None = None,
        seed: int = 0,
        workers: int | None = None,
        views: int = 0,
        shuffled: bool | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.samples, self.spec, self.augment = samples, spec, augment
        self.batch_size, self.seed, self.views = batch_size, seed, views
        self.rank, self.ranks = rank, ranks
        self.shuffled = augment is not None if shuffled is None else shuffled
        self.workers = workers or os.cpu_count() or 1
        self.failed: dict[int, str] = {}
        self._kept = _Kept(KEEP)

    def __len__(self) -> int:
        """How many batches an epoch has."""
        usable = (len(self.samples) - len(self.failed)) // self.ranks
        whole, rest = divmod(usable, self.batch_size)
        return whole + bool(rest and (not self.shuffled or not whole))

    def order(self, epoch: int) -> list[int]:
        """Positions of this rank's samples in the order of an epoch, but those that failed."""
        usable = [i for i in range(len(self.samples)) if i not in self.failed]
        if not self.shuffled:
            return usable[self.rank :: self.ranks]
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(usable))
        return [usable[i] for i in order[self.rank :: self.ranks]]

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """All batches of an epoch; if shuffled, without the last if smaller.

        An image that cannot be read is left out, and those behind it move up.
        """
        images, whole = self._images(number), False
        while found := list(islice(images, self.batch_size)):
            if self.shuffled and whole and len(found) < self.batch_size:
                return
            whole = True
            positions, pixels, labels = zip(*found, strict=True)
            yield Batch(np.stack(pixels), list(labels), np.array(positions))

    def _images(self, epoch: int) -> Iterator[tuple[int, Array, Any]]:
        """Positions, pixel values and labels of what can be read, so many batches ahead."""
        waiting: deque[tuple[int, Future[tuple[Array, Any]]]] = deque()
        order = iter(self.order(epoch))
        with warnings.catch_warnings(), ThreadPoolExecutor(self.workers) as pool:
            warnings.simplefilter("ignore")  # of PIL's; in threads it is undone at random
            try:
                while True:
                    for position in islice(order, AHEAD * self.batch_size - len(waiting)):
                        waiting.append((position, pool.submit(self._read, position, epoch)))
                    if not waiting:
                        return
                    position, future = waiting.popleft()
                    try:
                        yield position, *future.result()
                    except ImageError as error:
                        self.failed[position] = str(error)
            finally:  # whoever asked for batches may want no more of them
                pool.shutdown(cancel_futures=True)

    def problem(self, position: int) -> str:
        """Why an image cannot be read; "" if it can."""
        try:
            self._read(position, 0)
        except ImageError as error:
            return str(error)
        return ""

    def _read(self, position: int, epoch: int) -> tuple[Array, Any]:
        path, label = self.samples[position].path, self.samples[position].label
        if self.augment is None:
            return resize_and_crop(path, self.spec), label
        view = epoch % self.views if self.views else epoch
        rng = np.random.default_rng([self.seed, view, position])
        image = self._kept.get(path, 2 * self.spec.size)
        return self.augment.labelled(image, label, self.spec, rng)


class _Kept:
    """Decoded images, as many as fit; all of them reduced, so that it does not matter which."""

    def __init__(self, limit: int) -> None:
        self.left, self.images = limit, dict[str, "Image.Image"]()
        self.lock = threading.Lock()

    def get(self, path: str, side: int) -> Image.Image:
        """An image whose shorter side is below twice ``side``. Raises ImageError."""
        if (found := self.images.get(path)) is not None:
            return found
        image = open_image(path)
        if (factor := min(image.size) // side) > 1:
            image = image.reduce(factor)
        size = 3 * image.size[0] * image.size[1]
        with self.lock:
            if size <= self.left and path not in self.images:
                self.left -= size
                self.images[path] = image
        return image
