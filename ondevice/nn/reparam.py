"""Blocks trained with parallel branches that one convolution replaces in inference.

Papers: https://arxiv.org/abs/2206.04040 (MobileOne), https://arxiv.org/abs/2203.06717 (large
kernels), https://arxiv.org/abs/2303.14189 (RepMixer). All maps are NHWC.
"""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn

from .batch_norm import BatchNorm
from .layers import (
    GELU,
    Conv2d,
    ConvNorm,
    Kernel,
    SqueezeExcite,
    add_identity,
    fold_norm,
    half,
    identity_kernel,
    scale_output,
)


class MobileOne(nn.Module):
    """Parallel convolutions, summed; then squeeze-and-excitation and an activation.

    ``branches`` k x k convolutions, one with a smaller kernel (``scale``, none if 0) and,
    with ``identity``, a batch norm of the input. ``act`` is a GELU, another one, or none.
    ``fused`` blocks have ``reparam_conv`` instead.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel: Kernel,
        stride: int = 1,
        groups: int = 1,
        *,
        scale: int = 1,
        identity: bool = False,
        se_dim: int = 0,
        act: bool | nn.Module = True,
        branches: int = 1,
        fused: bool = False,
    ) -> None:
        super().__init__()
        if fused:
            self.reparam_conv: nn.Module = Conv2d(
                in_chs, out_chs, kernel, stride, half(kernel), groups=groups
            )
        else:
            self.conv_kxk: list[nn.Module] = [
                ConvNorm(in_chs, out_chs, kernel, stride, groups) for _ in range(branches)
            ]
            if scale not in (0, kernel):
                self.conv_scale = ConvNorm(in_chs, out_chs, scale, stride, groups)
            if identity:
                self.identity = BatchNorm(in_chs)
        self.se = SqueezeExcite(out_chs, se_dim) if se_dim else nn.Identity()
        usual = GELU() if act else nn.Identity()
        self.act = act if isinstance(act, nn.Module) else usual

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in_chs) to (B, H / stride, W / stride, out_chs)."""
        if "reparam_conv" in self:
            y = self.reparam_conv(x)
        else:
            y = self.conv_kxk[0](x)
            for conv in self.conv_kxk[1:]:
                y = y + conv(x)
            y = y + self.conv_scale(x) if "conv_scale" in self else y
            y = y + self.identity(x) if "identity" in self else y
        return self.act(self.se(y))

    def fuse(self) -> MobileOne:
        """One convolution instead of the branches."""
        if "reparam_conv" in self:
            return self
        fused = copy.copy(self)
        conv, *branches = fused.pop("conv_kxk")
        branches += [fused.pop("conv_scale")] if "conv_scale" in self else []
        if "identity" in self:
            branches.append(norm_as_conv(fused.pop("identity"), like=conv))
        fused.reparam_conv = sum_convs(conv, *branches)
        return fused


class RepMixer(nn.Module):
    """Mixes neighbouring positions: ``x + layer_scale * (mixer(x) - norm(x))``."""

    def __init__(self, dim: int, kernel: Kernel = 3, *, scale: int = 1) -> None:
        super().__init__()
        self.norm = BatchNorm(dim)
        self.mixer = MobileOne(
            dim, dim, kernel, groups=dim, scale=scale, identity=True, act=False
        )
        self.layer_scale = mx.ones(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, dim) to (B, H, W, dim)."""
        return x + self.layer_scale * (self.mixer(x) - self.norm(x))

    def fuse(self) -> nn.Module:
        """One depthwise convolution."""
        mixer = self.mixer.reparam_conv
        minus = scale_output(norm_as_conv(self.norm, like=mixer), -mx.ones_like(mixer.bias))
        return add_identity(scale_output(sum_convs(mixer, minus), self.layer_scale))


def sum_convs(conv: nn.Module, *others: nn.Module) -> nn.Module:
    """One convolution that computes the sum of parallel ones, ``conv``'s kernel the largest."""
    total = copy.copy(conv)
    for other in others:
        margin = (conv.weight.shape[1] - other.weight.shape[1]) // 2
        edges = (margin, margin)
        total.weight = total.weight + mx.pad(other.weight, [(0, 0), edges, edges, (0, 0)])
        total.bias = total.bias + other.bias
    return total


def norm_as_conv(norm: nn.BatchNorm, *, like: nn.Module) -> nn.Module:
    """A batch norm as a convolution of the same shape as another."""
    conv = copy.copy(like)
    conv.weight, conv.bias = identity_kernel(like), mx.zeros_like(like.bias)
    return fold_norm(conv, norm)
