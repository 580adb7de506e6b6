"""Blocks that two families or more are made of. All maps are NHWC."""

from __future__ import annotations

import copy
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn

from ..cpu import kernels
from .batch_norm import BatchNorm
from .drop_path import DropPath

Kernel = int | tuple[int, int]  # height and width


def half(kernel: Kernel) -> Kernel:
    """The padding with which a convolution of stride 1 keeps the size."""
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def unit(x: mx.array, axis: int = -1) -> mx.array:
    """Rows, or what lies along another axis, of length 1, computed in float32."""
    y = x.astype(mx.float32)
    y = y * mx.rsqrt(mx.maximum((y * y).sum(axis=axis, keepdims=True), 1e-12))
    return y.astype(x.dtype)


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` (it is one, to all that look for them) in the form that is fast here."""

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H, W, out) of the size that stride and padding make."""
        y = kernels.conv2d(
            x, self.weight, self.stride, self.padding, self.dilation, self.groups
        )
        return y + self.bias if "bias" in self else y


class LeadingDepthwise(Conv2d):
    """A depthwise convolution of the first channels; those behind them pass unchanged.

    One convolution of all channels, whose kernels behind the first ones are identities: three
    operations and two copies of the map fewer than to split them off. Where MLX computes on
    a plain CPU, numbers cost more than operations, and only the first ones are convolved.
    """

    def __init__(self, conv: nn.Module, channels: int) -> None:
        """``conv``: the first ones' depthwise convolution; ``channels``: of the whole map."""
        leading, *kernel, _ = conv.weight.shape
        super().__init__(channels, channels, tuple(kernel), 1, conv.padding, groups=channels)
        self.leading = leading
        identities = identity_kernel(self)[leading:].astype(conv.weight.dtype)
        self.weight = mx.concatenate([conv.weight, identities])
        self.bias = mx.pad(conv.bias, (0, channels - leading))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        if not kernels.is_fast(x):
            return super().__call__(x)
        n = self.leading
        first, behind = mx.split(x, [n], axis=-1)
        first = kernels.conv2d(first, self.weight[:n], (1, 1), self.padding, groups=n)
        return mx.concatenate([first + self.bias[:n], behind], axis=-1)


class ReLU(nn.Module):
    """``max(x, 0)``, in the form that is fast here."""

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape to the same."""
        return kernels.relu(x)


class ReLU6(nn.Module):
    """``x`` between 0 and 6."""

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape to the same."""
        return mx.minimum(mx.maximum(x, 0), 6)


class SiLU(nn.Module):
    """``x * sigmoid(x)``, which MLX's own would compile."""

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape to the same."""
        return x * mx.sigmoid(x)


class GELU(nn.Module):
    """The exact GELU, in the form that is fast here."""

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape to the same."""
        return kernels.gelu(x)


class TanhGELU(nn.Module):
    """GELU's approximation by a tanh, with which some networks were trained."""

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape to the same."""
        return nn.gelu_approx(x)


ACTIVATIONS = {"gelu": GELU, "gelu_tanh": TanhGELU}  # by timm's name


def norm_affine(norm: nn.BatchNorm) -> tuple[mx.array, mx.array]:
    """(C,) scale and shift that a batch norm applies with its running statistics."""
    scale = norm.weight * mx.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def fold_norm(conv: nn.Module, norm: nn.BatchNorm) -> nn.Module:
    """One convolution that computes ``norm(conv(x))`` with the norm's running statistics."""
    scale, shift = norm_affine(norm)
    fused = scale_output(conv, scale)
    fused.bias = fused.get("bias", 0) + shift
    return fused


def scale_output(conv: nn.Module, scale: mx.array) -> nn.Module:
    """One convolution or linear layer that computes ``conv(x) * scale``.

    ``scale`` is (C,) or a number.
    """
    fused = copy.copy(conv)
    fused.weight = conv.weight * mx.reshape(scale, (-1,) + (1,) * (conv.weight.ndim - 1))
    if "bias" in conv:
        fused.bias = conv.bias * scale
    return fused


def affine_input(conv: nn.Module, scale: mx.array, shift: mx.array) -> nn.Module:
    """One 1x1 convolution or linear layer of ``x * scale + shift``, both (C,)."""
    fused = copy.copy(conv)
    fused.weight = conv.weight * scale
    fused.bias = conv.get("bias", 0) + conv.weight.reshape(-1, len(scale)) @ shift
    return fused


def scale_last(layer: nn.Module, scale: mx.array) -> nn.Module:
    """A layer that computes ``layer(x) * scale``, (C,), in the last of those it is made of.

    That is the last of an ``nn.Sequential``, and the one that ``layer.last`` names elsewhere.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return scale_output(layer, scale)
    fused = copy.copy(layer)
    if isinstance(layer, nn.Sequential):
        fused.layers = [*layer.layers[:-1], scale_last(layer.layers[-1], scale)]
    else:
        fused[layer.last] = scale_last(layer[layer.last], scale)
    return fused


def is_depthwise(layer: nn.Module) -> bool:
    """Whether ``layer`` is a convolution of each channel with itself at stride 1."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.stride == (1, 1)
        and layer.weight.shape[-1] == 1
        and layer.groups == layer.weight.shape[0]
    )


def identity_kernel(like: nn.Module) -> mx.array:
    """(C, H, W, C / groups) kernel with which a convolution like this returns its input."""
    out_chs, H, W, in_chs = like.weight.shape
    kernel = mx.zeros(like.weight.shape, like.weight.dtype)
    chs = mx.arange(out_chs)
    kernel[chs, H // 2, W // 2, chs % in_chs] = 1
    return kernel


def add_identity(conv: nn.Module) -> nn.Module:
    """One convolution that computes ``x + conv(x)``: a 1 added at each kernel's centre."""
    fused = copy.copy(conv)
    fused.weight = conv.weight + identity_kernel(conv)
    return fused


def affine_first(layer: nn.Module, scale: mx.array, shift: mx.array) -> nn.Module:
    """A layer that computes ``layer(x * scale + shift)``, in those that read x.

    ``layer.first`` names them; each is a 1x1 convolution, a linear layer or has such ones.
    """
    fused = copy.copy(layer)
    for name in layer.first:
        fold = affine_first if hasattr(layer[name], "first") else affine_input
        fused[name] = fold(layer[name], scale, shift)
    return fused


class ConvNorm(nn.Module):
    """A convolution and its batch norm: one convolution once fused.

    Without ``padding``, as much as keeps the size at stride 1.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel: Kernel = 1,
        stride: int = 1,
        groups: int = 1,
        padding: Kernel | None = None,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        padding = half(kernel) if padding is None else padding
        self.conv = Conv2d(in_chs, out_chs, kernel, stride, padding, groups=groups, bias=bias)
        self.bn = BatchNorm(out_chs)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, out), halves rounded up."""
        return self.bn(self.conv(x))

    def fuse(self) -> nn.Module:
        """One convolution with a bias."""
        return fold_norm(self.conv, self.bn)


def normed_mlp(dim: int, hidden: int) -> nn.Sequential:
    """Two 1x1 convolutions, each with a batch norm, and a GELU between."""
    return nn.Sequential(ConvNorm(dim, hidden), GELU(), ConvNorm(hidden, dim))


class NormLinear(nn.Module):
    """A batch norm and a linear layer: one linear layer once fused."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.bn = BatchNorm(in_dim)
        self.linear = nn.Linear(in_dim, out_dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, in) vectors to (B, out)."""
        return self.linear(self.bn(x))

    def fuse(self) -> nn.Linear:
        """One linear layer."""
        scale, shift = norm_affine(self.bn)
        linear = copy.copy(self.linear)
        linear.weight = self.linear.weight * scale
        linear.bias = self.linear.bias + self.linear.weight @ shift
        return linear


class Residual(DropPath):
    """``x + m(x)``; a depthwise ``m`` takes the sum into its kernel when fused."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape to the same."""
        return x + self.dropped(self.m(x))

    def fuse(self) -> nn.Module:
        """One depthwise convolution where ``m`` is one, or itself."""
        return add_identity(self.m) if is_depthwise(self.m) else self


class GroupNorm1(nn.Module):
    """Normalize each sample over all its pixels and channels; scale and shift per channel."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = mx.ones(dim)
        self.bias = mx.zeros(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ..., C) to the same shape."""
        y = kernels.standardize(x, self.eps)
        y = y * self.weight if "weight" in self else y
        return y + self.bias if "bias" in self else y

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
        self.fc1 = Conv2d(dim, hidden, 1)
        self.fc2 = Conv2d(hidden, dim, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        gate = self.fc2(kernels.relu(self.fc1(x.mean(axis=(1, 2), keepdims=True))))
        return x * mx.sigmoid(gate)


class ConvMlp(nn.Module):
    """Two 1x1 convolutions with an activation between."""

    first, last = ("fc1",), "fc2"

    def __init__(self, dim: int, hidden: int, act: nn.Module) -> None:
        super().__init__()
        self.fc1 = Conv2d(dim, hidden, 1)
        self.act = act
        self.fc2 = Conv2d(hidden, dim, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.fc2(self.act(self.fc1(x)))


class FFN(nn.Module):
    """Two 1x1 convolutions with twice the channels between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pw1 = ConvNorm(dim, 2 * dim)
        self.pw2 = ConvNorm(2 * dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.pw2(kernels.relu(self.pw1(x)))


class PatchMerging(nn.Module):
    """Half the resolution, ``out_dim`` channels, through an inverted bottleneck."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        hidden = 4 * dim
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride=2, groups=hidden)
        self.se = SqueezeExcite(hidden, make_divisible(hidden / 4))
        self.conv3 = ConvNorm(hidden, out_dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B, H / 2, W / 2, out), halves rounded up."""
        x = kernels.relu(self.conv2(kernels.relu(self.conv1(x))))
        return self.conv3(self.se(x))


class Stage(nn.Module):
    """Blocks of one resolution, after a step down to it if the channels change."""

    def __init__(self, in_dim: int, dim: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.downsample = []
        if in_dim != dim:
            self.downsample = [
                Residual(ConvNorm(in_dim, in_dim, 3, groups=in_dim)),
                Residual(FFN(in_dim)),
                PatchMerging(in_dim, dim),
                Residual(ConvNorm(dim, dim, 3, groups=dim)),
                Residual(FFN(dim)),
            ]
        self.blocks = blocks

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H, W, C), or half the size after a step down."""
        for layer in [*self.downsample, *self.blocks]:
            x = layer(x)
        return x


def stage_renames(depth: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    """Official names of ``Stage`` layers: one flat list a stage, its first three step down."""
    blocks = [
        (rf"^blocks{i}\.{j + 3 * (i > 1)}\.", f"stages.{i - 1}.blocks.{j}.")
        for i, n in enumerate(depth, start=1)
        for j in range(n)
    ]
    return (
        *blocks,
        *((rf"^blocks{i}\.", f"stages.{i - 1}.downsample.") for i in range(2, len(depth) + 1)),
        (r"downsample\.0\.([01])\.", r"downsample.\1."),
        (r"downsample\.1\.(conv\d|se)\.", r"downsample.2.\1."),
        (r"downsample\.2\.0\.", "downsample.3."),
        (r"downsample\.2\.1\.", "downsample.4."),
    )


def conv_stem(dim: int) -> list[nn.Module]:
    """Four 3x3 convolutions of stride 2 with ReLU between them: 1/16 of the resolution."""
    widths = [3, dim // 8, dim // 4, dim // 2, dim]
    layers: list[nn.Module] = []
    for in_chs, out_chs in pairwise(widths):
        layers += [ConvNorm(in_chs, out_chs, 3, stride=2), ReLU()]
    return layers[:-1]


def make_divisible(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``width``, at least one."""
    return max(divisor, int(width + divisor / 2) // divisor * divisor)
