"""CCT, Compact Convolutional Transformers: networks of 0.3 to 22 M parameters for small data.

Paper: https://arxiv.org/abs/2104.05704
Code: https://github.com/SHI-Labs/Compact-Transformers (Apache-2.0), whose names these are; it
has the addresses of the weights, files of PyTorch for ``ondevice import``
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..cpu import kernels
from ..nn.drop_path import DropPath
from ..nn.image_model import ImageModel
from ..nn.layers import Conv2d, ReLU
from ..nn.transformer import Mlp, SelfAttention
from ..registry import ModelSpec, register_model

STEM = 64  # channels between two convolutions


@dataclass(frozen=True, kw_only=True)
class CCTConfig(ModelConfig):
    embed_dim: int
    depth: int
    heads: int
    mlp_ratio: int
    kernel: int  # of the convolutions
    convs: int
    img_size: int
    positions: Literal["learned", "sine"] = "learned"

    @property
    def conv_stride(self) -> int:
        """Of a convolution; a pool of stride 2 follows each."""
        return max(1, self.kernel // 2 - 1)

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return (FeatureInfo(0, self.embed_dim, (2 * self.conv_stride) ** self.convs),)

    @property
    def tokens(self) -> int:
        """Positions of the map."""
        return (self.img_size // self.stride) ** 2

    @property
    def only_size(self) -> int:
        return self.img_size


class Block(DropPath):
    """Attention and an MLP; what lies between them is normalized, residual and all."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(dim)
        self.self_attn = SelfAttention(dim, heads, qkv_bias=False)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, N, dim) to the same shape."""
        x = self.norm1(x + self.dropped(self.self_attn(self.pre_norm(x))))
        return x + self.dropped(self.mlp(x))


class CCT(ImageModel):
    def __init__(self, config: CCTConfig) -> None:
        super().__init__()
        self.config = c = config
        dim, widths = c.embed_dim, [3, *[STEM] * (c.convs - 1), c.embed_dim]
        self.convs = [
            Conv2d(a, b, c.kernel, c.conv_stride, c.kernel // 2, bias=False)
            for a, b in pairwise(widths)
        ]
        self.pos_embed = mx.zeros((1, c.tokens, dim))
        if c.positions == "sine":
            self.pos_embed = sines(c.tokens, dim)
            self.freeze(recurse=False, keys=["pos_embed"])
        self.blocks = [Block(dim, c.heads, c.mlp_ratio * dim) for _ in range(c.depth)]
        self.norm = nn.LayerNorm(dim)
        self.attention_pool = nn.Linear(dim, 1)
        if c.num_classes:
            self.head = nn.Linear(dim, c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to one NHWC map."""
        for conv in self.convs:
            x = nn.MaxPool2d(3, 2, 1)(ReLU()(conv(x)))
        y = x.flatten(1, 2) + self.pos_embed
        for block in self.blocks:
            y = block(y)
        return [y.reshape(x.shape)]

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the pool."""
        return self.norm(x)

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B, C): the mean, each position weighted by its own score."""
        x = x.flatten(1, 2)
        shares = kernels.softmax(self.attention_pool(x).swapaxes(1, 2))
        return (shares @ x)[:, 0]


def sines(length: int, dim: int) -> mx.array:
    """(1, length, dim) waves of the position, sines and cosines in turn."""
    channel = mx.arange(dim)
    angle = mx.arange(length)[:, None] / 10000.0 ** (2 * (channel // 2) / dim)
    return mx.where(channel % 2 == 0, mx.sin(angle), mx.cos(angle))[None]


_RENAMES = (
    (r"^classifier\.", ""),
    (r"^tokenizer\.conv_layers\.(\d+)\.0\.", r"convs.\1."),
    (r"^positional_emb$", "pos_embed"),
    (r"\.linear(\d)\.", r".mlp.fc\1."),
    (r"^fc\.", "head."),
)


def _contract(size: int, crop_pct: float, mean: str, std: str) -> Preprocess:
    """As in the authors' configurations of training."""
    r, g, b = (float(f"0.{digits}") for digits in mean.split())
    s, t, u = (float(f"0.{digits}") for digits in std.split())
    return Preprocess(size=size, crop_pct=crop_pct, mean=(r, g, b), std=(s, t, u))


_CIFAR10 = _contract(32, 1, "4914 4822 4465", "2470 2435 2616")
_CIFAR100 = _contract(32, 1, "5071 4867 4408", "2675 2565 2761")
_FLOWERS = "4353 3773 2872", "2966 2455 2698"
# By layers: channels, heads, and how many times wider an MLP is.
_SIZES = {2: (128, 2, 1), 4: (128, 2, 1), 6: (256, 4, 2), 7: (256, 4, 2), 14: (384, 6, 3)}


def _register(
    name: str, preprocess: Preprocess, classes: int, millions: float, macs: float | None = None
) -> None:
    """``name`` says layers, kernel, convolutions and pixels; ``macs`` are in billions.

    Learned positions are parameters, waves are not; of 6/3x1, the authors count the latter.
    """
    layers, form, pixels, *_ = name.removeprefix("cct_").split("_")
    kernel, convs = map(int, form.split("x"))
    dim, heads, ratio = _SIZES[int(layers)]
    config = CCTConfig(
        num_classes=classes,
        embed_dim=dim,
        depth=int(layers),
        heads=heads,
        mlp_ratio=ratio,
        kernel=kernel,
        convs=convs,
        img_size=int(pixels),
        positions="sine" if "_sine" in name else "learned",
    )
    waves = config.tokens * dim if config.positions == "sine" else 0
    register_model(
        ModelSpec(
            name=name,
            family="cct",
            build=CCT,
            config=config,
            preprocess=preprocess,
            fixed_size=True,
            renames=_RENAMES,
            params=round(millions * 1e6) - waves,
            macs=None if macs is None else round(macs * 1e9),
        )
    )


for _positions in ("", "_sine"):
    _register(f"cct_2_3x2_32{_positions}", _CIFAR10, 10, 0.284, 0.033)
    _register(f"cct_4_3x2_32{_positions}", _CIFAR10, 10, 0.482, 0.046)
    _register(f"cct_6_3x1_32{_positions}", _CIFAR10, 10, 3.234, 0.813)
    _register(f"cct_6_3x2_32{_positions}", _CIFAR10, 10, 3.327, 0.241)
    _register(f"cct_7_3x1_32{_positions}", _CIFAR10, 10, 3.760, 0.947)
    _register(f"cct_7_3x1_32{_positions}_c100", _CIFAR100, 100, 3.783, 0.947)
    _register(f"cct_7_3x2_32{_positions}", _CIFAR10, 10, 3.853, 0.275)
    _register(f"cct_7_7x2_224{_positions}", _contract(224, 1, *_FLOWERS), 102, 4.57)
_register("cct_14_7x2_224", Preprocess(crop_pct=0.9), 1000, 22.36, 5.11)
_register("cct_14_7x2_384", Preprocess(size=384, crop_pct=0.9), 1000, 22.51, 15.02)
_register("cct_14_7x2_384_fl", _contract(384, 1, *_FLOWERS), 102, 22.17, 15.02)
