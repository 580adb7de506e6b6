"""Batch norm whose statistics are sums of short sums, and which can keep them as they are."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn


class BatchNorm(nn.BatchNorm):
    """``nn.BatchNorm`` (it is one, to all that look for them), exact also in training.

    A mean over 100,000 positions that is added up one after the other loses four digits, which
    the gradients of small channels then lack. Here each axis is averaged by itself.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ..., C) to the same shape; in training by the batch's own statistics.

        What is of fewer bits than the parameters is normalized in theirs.

        Raises ValueError in training for a single value a channel, which has no variance.
        """
        if x.dtype != self.weight.dtype:
            return self(x.astype(self.weight.dtype)).astype(x.dtype)
        if not self.training:
            return super().__call__(x)
        count = x.size // x.shape[-1]
        if count == 1:
            raise ValueError("batch norm in training needs two values a channel or more")
        y, mean, var = _normalized(x, self.weight, self.bias, mx.array(self.eps, x.dtype))
        mu = self.momentum
        self.running_mean = (1 - mu) * self.running_mean + mu * mx.stop_gradient(mean)
        unbiased = mx.stop_gradient(var) * (count / (count - 1))
        self.running_var = (1 - mu) * self.running_var + mu * unbiased
        return y


def _mean(x: mx.array) -> mx.array:
    """(C,) of (B, ..., C)."""
    for axis in range(x.ndim - 2, -1, -1):
        x = x.mean(axis=axis)
    return x


def _forward(
    x: mx.array, weight: mx.array, bias: mx.array, eps: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    """The (B, ..., C) result, and the (C,) mean and variance, which have no gradient."""
    mean = _mean(x)
    var = _mean(mx.square(x - mean))
    return (x - mean) * (mx.rsqrt(var + eps) * weight) + bias, mean, var


def _backward(
    given: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
) -> tuple[mx.array, ...]:
    """In half the operations of MLX, to which mean and variance are functions of x."""
    (x, weight, _, eps), dy, (_, mean, var) = given, cotangents[0], outputs
    inverse = mx.rsqrt(var + eps)
    centered = x - mean
    along_mean, along = _mean(dy), _mean(dy * centered) * inverse
    scale = inverse * weight
    dx = (dy - along_mean) * scale - centered * (along * inverse * scale)
    count = x.size // x.shape[-1]
    return dx, along * count, along_mean * count, mx.zeros_like(eps)


_normalized: Any = mx.custom_function(_forward)
_normalized.vjp(_backward)


def freeze_statistics(model: nn.Module) -> None:
    """Let batch norms of ``model``, which is in training, use and keep what they have learned.

    Batches of fewer than about 32 images have statistics too noisy to normalize by.
    """
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm):
            layer.eval()
