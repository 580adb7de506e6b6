"""What a model gives for many images, decoded while it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ...config import Preprocess
from ...cpu.threads import run_each
from ...errors import ImageError
from ...image.preprocess import normalize
from .loader import Loader

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


def predictions(
    function: Callable[[mx.array], mx.array], loader: Loader, spec: Preprocess, epoch: int = 0
) -> tuple[Array, Array]:
    """``function`` of all normalized images, (N, ...), and their (N,) positions.

    Images that cannot be read are missing; ``loader.failed`` has them. Raises ImageError if
    none can be read.
    """
    batches = ((batch.positions, batch.pixels) for batch in loader.epoch(epoch))
    found = list(run_each(lambda x: function(normalize(x, spec)), batches))
    if not found:
        raise ImageError("none of the images can be used")
    positions, values = zip(*found, strict=True)
    return np.concatenate(values), np.concatenate(positions)
