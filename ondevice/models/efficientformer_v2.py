"""EfficientFormerV2: convolutions, and attention whose heads talk to each other.

Paper: https://arxiv.org/abs/2212.08059
Code: https://github.com/snap-research/EfficientFormer (Apache-2.0); names follow
timm/models/efficientformer_v2.py
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..cpu import kernels
from ..nn.attention import DistanceBias
from ..nn.batch_norm import BatchNorm
from ..nn.heads import DISTILLED, DistilledHead
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import GELU, Conv2d, ConvNorm, add_identity, scale_last, scale_output
from ..nn.residual import BLOCK, Block, ScaledResidual
from ..registry import ModelSpec, register_model, timm_weights

HEADS, KEY_DIM = 8, 32
STRIDED = 2  # the stage whose attention is over a map of half its size


@dataclass(frozen=True, kw_only=True)
class EfficientFormerV2Config(PyramidConfig):
    depth: tuple[int, ...]
    narrow: tuple[tuple[int, int], ...]  # blocks of a stage, from and to, with MLPs of 3, not 4
    attention_blocks: int  # at the end of the last two stages each
    img_size: int = 224

    @property
    def only_size(self) -> int:
        return self.img_size

    def side(self, stage: int) -> int:
        """Positions a side of a stage's map."""
        return -(-self.img_size // self.feature_info[stage].stride)


class MixedMlp(nn.Module):
    """Two 1x1 convolutions with a depthwise one between, and GELUs between them."""

    last = "fc2"

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = ConvNorm(dim, hidden, bias=True)
        self.mid = ConvNorm(hidden, hidden, 3, groups=hidden, bias=True)
        self.fc2 = ConvNorm(hidden, dim, bias=True)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.fc2(kernels.gelu(self.mid(kernels.gelu(self.fc1(x)))))


class LocalQuery(nn.Module):
    """Queries at every second position: what is there, and what a convolution makes of it."""

    last = "proj"
    adds_input = True

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.local: nn.Module = Conv2d(dim, dim, 3, 2, 1, groups=dim)
        self.proj = ConvNorm(dim, out_dim, bias=True)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B, H / 2, W / 2, out), halves rounded up."""
        y = self.local(x)
        return self.proj(y + x[:, ::2, ::2] if self.adds_input else y)

    def fuse(self) -> LocalQuery:
        """The same with what is there as a 1 at the kernel's centre."""
        if not self.adds_input:
            return self
        fused = copy.copy(self)
        fused.local, fused.adds_input = add_identity(self.local), False
        return fused


class Attention(nn.Module):
    """Attention over a map, beside a convolution of the values.

    With ``stride``, over a map made smaller, and enlarged again.
    """

    last = "proj"

    def __init__(self, dim: int, side: int, stride: int = 1) -> None:
        super().__init__()
        keys, values, side = HEADS * KEY_DIM, HEADS * 4 * KEY_DIM, -(-side // stride)
        self.scale = KEY_DIM**-0.5
        if stride > 1:
            self.stride_conv = ConvNorm(dim, dim, 3, stride, groups=dim, bias=True)
            self.upsample = nn.Upsample(stride, mode="linear", align_corners=False)
        self.q: nn.Module = ConvNorm(dim, keys, bias=True)
        self.k = ConvNorm(dim, keys, bias=True)
        self.v = ConvNorm(dim, values, bias=True)
        self.v_local = ConvNorm(values, values, 3, groups=values, bias=True)
        self.talking_head1 = Conv2d(HEADS, HEADS, 1)
        self.talking_head2 = Conv2d(HEADS, HEADS, 1)
        self.proj = ConvNorm(values, dim, bias=True)
        self.bias = DistanceBias(HEADS, side, side)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        x = self.stride_conv(x) if "stride_conv" in self else x
        v = self.v(x)
        scores = _scores(self.q(x), self.k(x), self.scale) + self.bias()
        attn = kernels.softmax(_across(self.talking_head1, scores))
        y = _weighted(_across(self.talking_head2, attn), v, v.shape[1]) + self.v_local(v)
        y = self.upsample(y) if "upsample" in self else y
        return self.proj(kernels.gelu(y))

    def fuse(self) -> Attention:
        """The same with the scale of q in its convolution."""
        fused = copy.copy(self)
        fused.q, fused.scale = scale_output(self.q, mx.array(self.scale)), 1.0
        return fused


class AttentionDownsample(nn.Module):
    """Attention of every second position to all."""

    def __init__(self, dim: int, out_dim: int, side: int) -> None:
        super().__init__()
        keys, values = HEADS * KEY_DIM // 2, HEADS * 2 * KEY_DIM
        self.scale = (KEY_DIM // 2) ** -0.5
        self.q: nn.Module = LocalQuery(dim, keys)
        self.k = ConvNorm(dim, keys, bias=True)
        self.v = ConvNorm(dim, values, bias=True)
        self.v_local = ConvNorm(values, values, 3, 2, groups=values, bias=True)
        self.proj = ConvNorm(values, out_dim, bias=True)
        self.bias = DistanceBias(HEADS, side, side, stride=2)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B, H / 2, W / 2, out), halves rounded up."""
        q, v = self.q(x), self.v(x)
        attn = kernels.softmax(_scores(q, self.k(x), self.scale) + self.bias())
        return self.proj(kernels.gelu(_weighted(attn, v, q.shape[1]) + self.v_local(v)))

    def fuse(self) -> AttentionDownsample:
        """The same with the scale of q in its convolution."""
        fused = copy.copy(self)
        fused.q, fused.scale = scale_last(self.q, mx.array(self.scale)), 1.0
        return fused


def _heads(x: mx.array) -> mx.array:
    """(B, H, W, C) to (B, heads, N, C / heads)."""
    return x.reshape(x.shape[0], -1, HEADS, x.shape[3] // HEADS).swapaxes(1, 2)


def _scores(q: mx.array, k: mx.array, scale: float) -> mx.array:
    q = _heads(q) if scale == 1 else _heads(q) * scale
    return q @ _heads(k).swapaxes(2, 3)


def _across(conv: nn.Module, scores: mx.array) -> mx.array:
    """(B, heads, M, N) to the same: each head a sum of all."""
    return conv(scores.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _weighted(attn: mx.array, v: mx.array, height: int) -> mx.array:
    """The values that M queries attend to, as a (B, height, M / height, C) map."""
    B, _, _, C = v.shape
    return (attn @ _heads(v)).swapaxes(1, 2).reshape(B, height, -1, C)


class Downsample(nn.Module):
    """A convolution of stride 2, and beside it attention."""

    def __init__(self, in_dim: int, dim: int, side: int, attend: bool) -> None:
        super().__init__()
        self.conv = ConvNorm(in_dim, dim, 3, 2, bias=True)
        if attend:
            self.attn = AttentionDownsample(in_dim, dim, side)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / 2, W / 2, C), halves rounded up."""
        return self.attn(x) + self.conv(x) if "attn" in self else self.conv(x)


class Stage(DownStage):
    """A step down (but for the first), then blocks, of which the last may attend."""

    def __init__(self, c: EfficientFormerV2Config, i: int) -> None:
        super().__init__()
        dim, stride = c.embed_dim[i], 2 if i == STRIDED else 1
        self.downsample: nn.Module = nn.Identity()
        if i:
            self.downsample = Downsample(c.embed_dim[i - 1], dim, c.side(i - 1), i == 3)
        self.blocks = []
        for j in range(c.depth[i]):
            narrow = c.narrow[i][0] <= j < c.narrow[i][1]
            mlp = ScaledResidual(MixedMlp(dim, (3 if narrow else 4) * dim), dim)
            mixer: nn.Module = nn.Identity()
            if i >= STRIDED and j >= c.depth[i] - c.attention_blocks:
                mixer = ScaledResidual(Attention(dim, c.side(i), stride), dim)
            self.blocks.append(Block(mixer, mlp))


class EfficientFormerV2(ImageModel):
    def __init__(self, config: EfficientFormerV2Config) -> None:
        super().__init__()
        c, stem = config, config.embed_dim[0]
        self.config = config
        first = ConvNorm(3, stem // 2, 3, 2, bias=True)
        self.stem = [first, GELU(), ConvNorm(stem // 2, stem, 3, 2, bias=True), GELU()]
        self.stages = [Stage(c, i) for i in range(len(c.depth))]
        self.norm = BatchNorm(c.embed_dim[-1])
        if c.num_classes:
            self.head = DistilledHead.linear(c.embed_dim[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.stem, self.stages, x)

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)


_RENAMES = (
    (r"^stem\.conv1\.", "stem.0."),
    (r"^stem\.conv2\.", "stem.2."),
    (r"\.mlp\.mid\.", ".mlp.m.mid."),
    *BLOCK,
    *DISTILLED,
)


def _register(
    name: str, top1: float, params: int, macs: int, config: EfficientFormerV2Config
) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="efficientformer_v2",
            build=EfficientFormerV2,
            config=config,
            preprocess=Preprocess(crop_pct=0.95),
            checkpoints=(timm_weights(name, "snap_dist_in1k", "apache-2.0", top1),),
            fixed_size=True,
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


_register(
    "efficientformerv2_s0",
    76.118,
    params=3_600_000,
    macs=410_000_000,
    config=EfficientFormerV2Config(
        embed_dim=(32, 48, 96, 176),
        depth=(2, 2, 6, 4),
        narrow=((0, 0), (0, 0), (1, 4), (1, 3)),
        attention_blocks=2,
    ),
)
_register(
    "efficientformerv2_s1",
    79.688,
    params=6_190_000,
    macs=670_000_000,
    config=EfficientFormerV2Config(
        embed_dim=(32, 48, 120, 224),
        depth=(3, 3, 9, 6),
        narrow=((0, 0), (0, 0), (2, 6), (2, 4)),
        attention_blocks=2,
    ),
)
_register(
    "efficientformerv2_s2",
    82.166,
    params=12_710_000,
    macs=1_270_000_000,
    config=EfficientFormerV2Config(
        embed_dim=(32, 64, 144, 288),
        depth=(4, 4, 12, 8),
        narrow=((0, 0), (0, 0), (2, 8), (2, 6)),
        attention_blocks=4,
    ),
)
_register(
    "efficientformerv2_l",
    83.632,
    params=26_320_000,
    macs=2_590_000_000,
    config=EfficientFormerV2Config(
        embed_dim=(40, 80, 192, 384),
        depth=(5, 5, 15, 10),
        narrow=((0, 0), (0, 0), (4, 11), (3, 7)),
        attention_blocks=6,
    ),
)
