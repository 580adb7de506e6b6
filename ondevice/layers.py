"""Blocks that two families or more are made of. All maps are NHWC."""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn


def fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm) -> nn.Conv2d:
    """One convolution that computes ``norm(conv(x))`` with the norm's running statistics."""
    scale = norm.weight * mx.rsqrt(norm.running_var + norm.eps)
    fused = copy.copy(conv)
    fused.weight = conv.weight * scale[:, None, None, None]
    fused.bias = norm.bias + (conv.get("bias", 0) - norm.running_mean) * scale
    return fused


def is_depthwise(layer: nn.Module) -> bool:
    """Whether ``layer`` is a convolution of each channel with itself at stride 1."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.stride == (1, 1)
        and layer.weight.shape[-1] == 1
        and layer.groups == layer.weight.shape[0]
    )


def add_identity(conv: nn.Conv2d) -> nn.Conv2d:
    """One depthwise convolution that computes ``x + conv(x)``: a 1 added at the centre."""
    _, H, W, _ = conv.weight.shape
    centre = mx.zeros((1, H, W, 1))
    centre[0, H // 2, W // 2, 0] = 1
    fused = copy.copy(conv)
    fused.weight = conv.weight + centre
    return fused


class ConvNorm(nn.Module):
    """A bias-free convolution and its batch norm: one convolution once fused."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_chs, out_chs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm(out_chs)

    def __call__(self, x: mx.array) -> mx.array:
        return self.bn(self.conv(x))

    def fuse(self) -> nn.Conv2d:
        return fold_norm(self.conv, self.bn)


class NormLinear(nn.Module):
    """A batch norm and a linear layer: one linear layer once fused."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm(in_dim)
        self.linear = nn.Linear(in_dim, out_dim)

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear(self.bn(x))

    def fuse(self) -> nn.Linear:
        bn, linear = self.bn, copy.copy(self.linear)
        scale = bn.weight * mx.rsqrt(bn.running_var + bn.eps)
        shift = bn.bias - bn.running_mean * scale
        linear.weight = self.linear.weight * scale
        linear.bias = self.linear.bias + self.linear.weight @ shift
        return linear


class Residual(nn.Module):
    """``x + m(x)``; a depthwise ``m`` takes the sum into its kernel when fused."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.m(x)

    def fuse(self) -> nn.Module:
        return add_identity(self.m) if is_depthwise(self.m) else self


class GroupNorm1(nn.Module):
    """Normalize each sample over all its pixels and channels; scale and shift per channel."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = mx.ones(dim)
        self.bias = mx.zeros(dim)

    def __call__(self, x: mx.array) -> mx.array:
        y = mx.fast.layer_norm(x.reshape(x.shape[0], -1), None, None, self.eps).reshape(x.shape)
        return y * self.weight + self.bias if "weight" in self else y

    def without_affine(self) -> GroupNorm1:
        """The same norm, its scale and shift left to the layer that follows."""
        plain = copy.copy(self)
        del plain.weight, plain.bias
        return plain


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the mean of all channels.

    Paper: https://arxiv.org/abs/1709.01507
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def __call__(self, x: mx.array) -> mx.array:
        gate = self.fc2(nn.relu(self.fc1(x.mean(axis=(1, 2), keepdims=True))))
        return x * mx.sigmoid(gate)


def make_divisible(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``width``, at least one."""
    return max(divisor, int(width + divisor / 2) // divisor * divisor)


class ImageModel(nn.Module):
    """What every model offers beside ``model(x)``. Abstract: a family gives the three parts.

    ``maps`` and ``pool`` are the family's; ``head`` is a layer or None.
    """

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the NHWC map of every stage."""
        raise NotImplementedError

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) last map to (B, C) embedding."""
        return x.mean(axis=(1, 2))

    def final(self, x: mx.array) -> mx.array:
        """What stands between the last stage and the pool: nothing in most families."""
        return x

    def features(
        self, x: mx.array, stages: tuple[int, ...] | None = None
    ) -> mx.array | list[mx.array]:
        """The last map, or with ``stages`` one NHWC map per named stage, in that order.

        ``model.config.feature_info`` has each stage's channels and stride.
        """
        maps = self.maps(x)
        if stages is None:
            return self.final(maps[-1])
        return [maps[i] for i in stages]

    def pooled(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to the (B, C) vector the classifier reads."""
        return self.pool(self.final(self.maps(x)[-1]))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, num_classes) logits; the embedding if there is no head."""
        x = self.pooled(x)
        return self.head(x) if "head" in self else x
