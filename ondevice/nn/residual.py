"""Residual branches with a norm before and a scale for each channel behind them."""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn

from .drop_path import DropPath
from .layers import Conv2d, affine_first, norm_affine, scale_last

# Names of a block's parts in timm become ours: attention or the like, then an MLP.
BLOCK = (
    (r"(blocks\.\d+)\.norm1\.", r"\1.mixer.norm."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.mlp.norm."),
    (r"(blocks\.\d+)\.(attn|token_mixer)\.", r"\1.mixer.m."),
    (r"(blocks\.\d+)\.mlp\.(fc|norm)(\d)\.", r"\1.mlp.m.\2\3."),
    (r"\.ls1\.gamma$", ".mixer.layer_scale"),
    (r"\.ls2\.gamma$", ".mlp.layer_scale"),
    (r"\.attention_biases$", ".bias.table"),
)


class ScaledResidual(DropPath):
    """``x + layer_scale * m(norm(x))``; fused, the scale is in the last layer of ``m``.

    A batch norm is in the first ones then. Without ``norm`` or ``scale``, the value that each
    channel's begins with, there is none.
    """

    def __init__(
        self, m: nn.Module, dim: int, norm: nn.Module | None = None, scale: float | None = 1e-5
    ) -> None:
        super().__init__()
        if norm is not None:
            self.norm = norm
        self.m = m
        if scale is not None:
            self.layer_scale = mx.full(dim, float(scale))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ..., dim) to the same shape."""
        return x + self.branch(x)

    def branch(self, x: mx.array) -> mx.array:
        """What is added to x; also of something else than that which it is added to."""
        y = self.m(self.norm(x) if "norm" in self else x)
        return self.dropped(y * self.layer_scale if "layer_scale" in self else y)

    def fuse(self) -> ScaledResidual:
        """The same with scale and batch norm in ``m``."""
        fused = copy.copy(self)
        if "layer_scale" in self and hasattr(self.m, "last"):
            fused.m = scale_last(fused.m, fused.pop("layer_scale"))
        if isinstance(self.get("norm"), nn.BatchNorm) and self.m.first:
            fused.m = affine_first(fused.m, *norm_affine(fused.pop("norm")))
        return fused


class Block(nn.Module):
    """Two residual branches: one mixes positions, the other channels."""

    def __init__(self, mixer: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer
        self.mlp = mlp

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ..., dim) to the same shape."""
        return self.mlp(self.mixer(x))


class PoolMixer(DropPath):
    """``x + layer_scale * (mean(x) - x)`` of the mean of each position and its neighbours.

    Fused, it is a depthwise convolution and what is left of x.
    """

    def __init__(self, dim: int, scale: float = 1e-5, kernel: int = 3) -> None:
        super().__init__()
        self.kernel = kernel
        self.layer_scale = mx.full(dim, float(scale))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        share = window_share(x.shape[1], x.shape[2], self.kernel).astype(x.dtype)
        if "conv" in self:
            return self.conv(x) * share + x * self.rest
        y = nn.AvgPool2d(self.kernel, 1, self.kernel // 2)(x) * share - x
        return x + self.dropped(y * self.layer_scale)

    def fuse(self) -> PoolMixer:
        """The same with the scale in a convolution, and no small difference of large values."""
        if "conv" in self:
            return self
        fused, kernel = copy.copy(self), self.kernel
        scale = fused.pop("layer_scale")
        dim = scale.size
        conv = Conv2d(dim, dim, kernel, 1, kernel // 2, groups=dim, bias=False)
        conv.weight = mx.broadcast_to(scale[:, None, None, None], conv.weight.shape) / kernel**2
        fused.conv, fused.rest = conv, 1 - scale
        return fused


def window_share(height: int, width: int, kernel: int) -> mx.array:
    """(H, W, 1): what a window has positions, over those of them that are in the map.

    A mean of a window in which the zeros around the map count, times this, is one in which
    they do not.
    """
    rows, columns = (_inside(n, kernel) for n in (height, width))
    return kernel**2 / (rows[:, None, None] * columns[None, :, None])


def _inside(size: int, kernel: int) -> mx.array:
    """(size,): how many of a window's positions are on an axis."""
    position, reach = mx.arange(size), kernel // 2
    return mx.minimum(position, reach) + mx.minimum(size - 1 - position, reach) + 1
