"""Normalizations. Every epsilon is the operation's own."""

from __future__ import annotations

import numpy as np

from .registry import Array, evaluates, ints, positive


def _per_channel(values: Array, rank: int) -> Array:
    return values.reshape(-1, *[1] * (rank - 2))


@evaluates("batch_norm")
def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    epsilon: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
) -> Array:
    scale = 1 / np.sqrt(variance + epsilon)
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if beta is None else beta - mean * scale
    result: Array = x * _per_channel(scale, x.ndim) + _per_channel(shift, x.ndim)
    return result


def _standardize(x: Array, axes: tuple[int, ...], epsilon: Array) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    variance = np.square(centred).mean(axes, keepdims=True)
    centred /= np.sqrt(variance + epsilon)
    result: Array = centred
    return result


def _scale_and_shift(y: Array, gamma: Array | None, beta: Array | None) -> Array:
    y = y if gamma is None else y * gamma
    return y if beta is None else y + beta


@evaluates("layer_norm")
def layer_norm(
    x: Array, axes: Array, epsilon: Array, gamma: Array | None = None, beta: Array | None = None
) -> Array:
    over = positive(axes, x.ndim)
    # gamma has the shape of the normalized axes, in the order they have in x.
    shape = [n if axis in over else 1 for axis, n in enumerate(x.shape)]
    gamma = None if gamma is None else gamma.reshape(shape)
    beta = None if beta is None else beta.reshape(shape)
    return _scale_and_shift(_standardize(x, over, epsilon), gamma, beta)


@evaluates("instance_norm")
def instance_norm(
    x: Array, epsilon: Array, gamma: Array | None = None, beta: Array | None = None
) -> Array:
    gamma = None if gamma is None else _per_channel(gamma, x.ndim)
    beta = None if beta is None else _per_channel(beta, x.ndim)
    return _scale_and_shift(_standardize(x, tuple(range(2, x.ndim)), epsilon), gamma, beta)


@evaluates("l2_norm")
def l2_norm(x: Array, epsilon: Array) -> Array:
    squares = np.square(x).sum((-3, -2, -1), keepdims=True)
    result: Array = x / np.sqrt(squares + epsilon)
    return result


@evaluates("local_response_norm")
def local_response_norm(x: Array, size: int, alpha: Array, beta: Array, k: Array) -> Array:
    before = (int(size) - 1) // 2
    edges = [(0, 0), (before, int(size) - 1 - before)] + [(0, 0)] * (x.ndim - 2)
    padded = np.pad(np.square(x), edges)
    windows = np.lib.stride_tricks.sliding_window_view(padded, ints(size)[0], axis=1)
    result: Array = x / (k + alpha / size * windows.sum(-1)) ** beta
    return result
