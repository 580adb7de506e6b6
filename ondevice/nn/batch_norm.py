"""Batch norm whose statistics are sums of short sums, and which can keep them as they are."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


class BatchNorm(nn.BatchNorm):
    """``nn.BatchNorm`` (it is one, to all that look for them), exact also in training.

    A mean over 100,000 positions that is added up one after the other loses four digits, which
    the gradients of small channels then lack. Here each axis is averaged by itself.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ..., C) to the same shape; in training by the batch's own statistics.

        Raises ValueError in training for a single value a channel, which has no variance.
        """
        if not self.training:
            return super().__call__(x)
        count = x.size // x.shape[-1]
        if count == 1:
            raise ValueError("batch norm in training needs two values a channel or more")
        mean = _mean(x)
        var = _mean(mx.square(x - mean))
        mu = self.momentum
        self.running_mean = (1 - mu) * self.running_mean + mu * mx.stop_gradient(mean)
        unbiased = mx.stop_gradient(var) * (count / (count - 1))
        self.running_var = (1 - mu) * self.running_var + mu * unbiased
        return (x - mean) * (mx.rsqrt(var + self.eps) * self.weight) + self.bias


def _mean(x: mx.array) -> mx.array:
    """(C,) of (B, ..., C)."""
    for axis in range(x.ndim - 2, -1, -1):
        x = x.mean(axis=axis)
    return x


def freeze_statistics(model: nn.Module) -> None:
    """Let batch norms of ``model``, which is in training, use and keep what they have learned.

    Batches of fewer than about 32 images have statistics too noisy to normalize by.
    """
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm):
            layer.eval()
