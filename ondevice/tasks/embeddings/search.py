"""The rows of an index that are most similar to an image or a text: exact, by cosine.

Every row is looked at. A million rows of 160 values take about as long as reading them from
memory, less than loading a model, so there is no approximate index to build or keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...cpu import blas
from ...errors import ConfigError
from ...image.preprocess import preprocess
from ...nn.fuse import fuse
from ...weights.hash import weights_hash
from .encode import embedder
from .index import Index

if TYPE_CHECKING:
    from ...image.open import ImageLike
    from ..clip import CLIP


@dataclass(frozen=True)
class Match:
    """One row of an index: its path, its position, and the cosine with what was looked up."""

    path: str
    score: float
    row: int


def search(index: Index, query: Any, *, top_k: int = 5) -> list[Match]:
    """The ``top_k`` rows most similar to ``query``, most similar first; of equals, the earlier.

    ``query`` is an array (dim,) or (1, dim). Raises ConfigError if it is longer or shorter than
    a row.
    """
    query = np.asarray(query, np.float32).ravel()
    if query.shape != index.shape[1:]:
        raise ConfigError(
            f"{index.name} has rows of {index.shape[1]} values, the query has {len(query)}"
        )
    query = query / max(float(np.linalg.norm(query)), 1e-12)
    scores = np.concatenate(
        [_cosines(rows, query, index.normalized) for rows in index.chunks()]
    )
    return [Match(index.path(row), float(scores[row]), row) for row in _top(scores, top_k)]


def _cosines(rows: Any, query: Any, normalized: bool) -> Any:
    found = rows @ query
    return found if normalized else found / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)


def _top(scores: Any, top_k: int) -> list[int]:
    """The indices of the ``top_k`` highest scores, highest first, of equal ones the lower."""
    top_k = min(top_k, len(scores))
    least = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
    rows = np.flatnonzero(scores >= least)
    order = np.argsort(-scores[rows], kind="stable")
    return rows[order][:top_k].tolist()


def image_query(model: nn.Module, image: ImageLike) -> mx.array:
    """(dim,): the row that ``image`` would have in an index of ``model``. Raises ImageError."""
    return embedder(fuse(model))(preprocess(image, model.info.preprocess))[0]


def encode_query(index: Index, model: nn.Module, image: ImageLike) -> mx.array:
    """(dim,): ``image`` as a row of ``index``.

    Raises ConfigError if another model made the index, ImageError.
    """
    _check_same(index, model)
    blas.advise()
    return image_query(model, image).astype(mx.float32)


def encode_text(index: Index, clip: CLIP, text: str) -> mx.array:
    """(dim,): ``text`` as a row of ``index``.

    Raises ConfigError unless the CLIP's image encoder made the index.
    """
    _check_same(index, clip.image)
    return clip.encode_text(text)[0].astype(mx.float32)


def _check_same(index: Index, model: nn.Module) -> None:
    if weights_hash(model) != index.weights:
        raise ConfigError(
            f"{index.name} was made by {index.model} with weights that are not those of "
            f"{model.info.name} as given; name the right ones with --model"
        )
