"""Fewer visual tokens without training: less for the language model to read.

Both ways act on the encoder's tokens, before the projector, and give beside the fewer tokens
a function that spreads them (projected or not) over the original positions: how far that is
from the full tokens says what was lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import mlx.core as mx

from ...nn.layers import unit

Restore: TypeAlias = Callable[[mx.array], mx.array]
Reduce: TypeAlias = Callable[[mx.array, int], tuple[mx.array, Restore]]

TEMPERATURE = 0.05  # of merging: cosine similarities 0.05 apart weigh as 1 to e


def dct(tokens: mx.array, count: int) -> tuple[mx.array, Restore]:
    """The low frequencies of a square of tokens (B, N, C), as a smaller square (B, count, C).

    The cosine transform of rows and columns is cut off and transformed back on the coarser
    grid: together two constant matrices. Fourier-VLM, https://arxiv.org/abs/2508.06038
    """
    full, small = math.isqrt(tokens.shape[1]), math.isqrt(count)
    down, up = _resample(full, small), _resample(small, full)
    return _on_grid(down, tokens), lambda fewer: _on_grid(up, fewer)


def _on_grid(matrix: mx.array, tokens: mx.array) -> mx.array:
    """``matrix`` applied to rows and columns of a square of tokens."""
    B, N, C = tokens.shape
    side = math.isqrt(N)
    x = matrix @ tokens.reshape(B, side, side * C)
    x = matrix @ x.reshape(B, -1, side, C)
    return x.reshape(B, -1, C)


def _resample(old: int, new: int) -> mx.array:
    """(new, old) matrix: the transform of ``old`` values, cut or filled up, and back."""
    kept = min(old, new)
    return (_cosines(new)[:kept].T @ _cosines(old)[:kept]) * math.sqrt(new / old)


def _cosines(n: int) -> mx.array:
    """The orthonormal cosine transform (DCT-II): a row for each frequency."""
    k, i = mx.arange(n)[:, None], mx.arange(n)[None]
    rows = mx.cos(math.pi / n * (i + 0.5) * k) * math.sqrt(2 / n)
    return mx.where(k == 0, math.sqrt(1 / n), rows)


def merge(tokens: mx.array, count: int) -> tuple[mx.array, Restore]:
    """(B, count, C) means of all tokens (B, N, C), weighted by similarity to one that is kept.

    Every token gives a share of itself to every output, so that nothing is thrown away:
    the many-to-many transformation of Token Transforming, https://arxiv.org/abs/2506.05709
    Kept are the tokens least similar to the others, in their order; the paper asks the
    attention, which FastViTHD's last layers do not have.
    """
    directions = unit(tokens)
    cosines = directions @ directions.swapaxes(1, 2)
    kept = mx.sort(mx.argsort(cosines.mean(axis=-1), axis=-1)[:, :count], axis=-1)
    to_kept = mx.take_along_axis(cosines, kept[:, None], axis=2)
    shares = mx.softmax(to_kept / TEMPERATURE, axis=-1)  # (B, tokens, count)
    weights = shares / shares.sum(axis=1, keepdims=True)
    return weights.swapaxes(1, 2) @ tokens, lambda fewer: shares @ fewer


METHODS: dict[str, Reduce] = {"dct": dct, "merge": merge}


def relative_error(found: mx.array, wanted: mx.array) -> float:
    """The norm of the difference over the norm of ``wanted``, arrays of one shape."""
    found, wanted = found.astype(mx.float32), wanted.astype(mx.float32)
    error: Any = mx.linalg.norm(found - wanted) / mx.linalg.norm(wanted)
    return float(error.item())
