"""MobileNetV4: inverted bottlenecks of every kind, in the hybrids with attention between.

Paper: https://arxiv.org/abs/2404.10518
Code: https://github.com/tensorflow/models (Apache-2.0); names follow
timm/models/mobilenetv3.py
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..cpu import kernels
from ..nn.batch_norm import BatchNorm
from ..nn.drop_path import DropPath
from ..nn.image_model import ImageModel, in_turn
from ..nn.layers import GELU, Conv2d, ConvNorm, ReLU, make_divisible, scale_output
from ..nn.residual import ScaledResidual
from ..registry import ModelSpec, register_model, weights_of

HEAD = 1280  # channels before the classifier
Words = list[tuple[str, dict[str, int]]]


@dataclass(frozen=True, kw_only=True)
class MobileNetV4Config(ModelConfig):
    """``stages`` says each block in a word: kind and numbers, as in "u:a3k5s2e4c80".

    c: a convolution; e: an inverted bottleneck whose first convolution is dense; u: one with
    depthwise convolutions before it (kernel ``a``) and inside (kernel ``k``), if not 0; m:
    attention of h heads of d channels to one key of every ``v`` * ``v`` positions. s is the
    stride, e the ratio of the hidden channels, c the channels that come out.
    """

    stages: tuple[str, ...]
    stem: int = 32
    width: float = 1.0  # times all channels but the stem's
    gelu: bool = False
    layer_scale: float | None = None
    blur: Literal["", "mean", "binomial"] = ""  # instead of strides

    @property
    def blocks(self) -> list[Words]:
        """Of each stage, kind and numbers of each block."""
        return [[_numbers(word, self.width) for word in stage.split()] for stage in self.stages]

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """The stem's map, and the last one of each size."""
        dims = [stage[-1][1]["c"] for stage in self.blocks]
        maps = (self.stem, *dims[:-2], dims[-1])
        return tuple(FeatureInfo(i, c, 2 * 2**i) for i, c in enumerate(maps))

    @property
    def stride(self) -> int:
        return self.feature_info[-1].stride


def _numbers(word: str, width: float) -> tuple[str, dict[str, int]]:
    kind, _, rest = word.partition(":")
    found = {k: int(n) for k, n in re.findall(r"([a-z])(\d+)", rest)}
    if width != 1:
        found["c"] = _divisible(found["c"] * width)
    return kind, {"s": 1, "a": 0, "k": 0, "v": 1} | found


def _divisible(width: float) -> int:
    """The nearest multiple of eight that is not less by a tenth."""
    found = make_divisible(width)
    return found if found >= 0.9 * width else found + 8


class Blur(nn.Module):
    """A fixed average of neighbours, at every second position."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B, H / 2, W / 2, C)."""
        if self.kind == "mean":
            return nn.AvgPool2d(2)(x)
        line = mx.array([0.25, 0.5, 0.25], x.dtype)
        kernel = mx.broadcast_to((line[:, None] * line)[..., None], (x.shape[3], 3, 3, 1))
        return kernels.conv2d(x, kernel, (2, 2), (1, 1), 1, x.shape[3])


def _conv(c: MobileNetV4Config, in_dim: int, dim: int, k: int, stride: int, **more: Any) -> Any:
    """A convolution with its norm, and what makes the map small."""
    if stride == 1 or not c.blur:
        return ConvNorm(in_dim, dim, k, stride, **more), nn.Identity()
    return ConvNorm(in_dim, dim, k, **more), Blur(c.blur)


class Convs(DropPath):
    """A convolution and an activation; with ``hidden`` channels, and a 1x1 behind them."""

    def __init__(
        self, c: MobileNetV4Config, in_dim: int, n: dict[str, int], wide: bool
    ) -> None:
        super().__init__()
        hidden = _divisible(in_dim * n["e"]) if wide else n["c"]
        self.conv1, self.down = _conv(c, in_dim, hidden, n["k"], n["s"])
        self.act = _act(c)
        self.residual = wide and n["s"] == 1 and in_dim == n["c"]
        if wide:
            self.conv2 = ConvNorm(hidden, n["c"])

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, C)."""
        y = self.down(self.act(self.conv1(x)))
        y = self.conv2(y) if "conv2" in self else y
        return x + self.dropped(y) if self.residual else y


class Inverted(DropPath):
    """An inverted bottleneck with depthwise convolutions before it, inside it, or neither."""

    def __init__(self, c: MobileNetV4Config, in_dim: int, n: dict[str, int]) -> None:
        super().__init__()
        hidden, none = _divisible(in_dim * n["e"]), nn.Identity()
        self.residual = n["s"] == 1 and in_dim == n["c"]
        self.act = _act(c)
        self.dw_start, self.dw_mid, self.down, self.down_start = none, none, none, none
        if n["a"]:
            stride = 1 if n["k"] else n["s"]
            made = _conv(c, in_dim, in_dim, n["a"], stride, groups=in_dim)
            self.dw_start, self.down_start = made
        self.pw_exp = ConvNorm(in_dim, hidden)
        if n["k"]:
            made = _conv(c, hidden, hidden, n["k"], n["s"], groups=hidden)
            self.dw_mid, self.down = made
        self.mixes = bool(n["k"])
        self.pw_proj: nn.Module = ConvNorm(hidden, n["c"])
        if c.layer_scale is not None:
            self.layer_scale = mx.full(n["c"], c.layer_scale)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, C)."""
        y = self.act(self.pw_exp(self.down_start(self.dw_start(x))))
        y = self.down(self.act(self.dw_mid(y))) if self.mixes else y
        y = self.pw_proj(y)
        y = y * self.layer_scale if "layer_scale" in self else y
        return x + self.dropped(y) if self.residual else y

    def fuse(self) -> Inverted:
        """The same with the scale in the last convolution."""
        if "layer_scale" not in self:
            return self
        fused = copy.copy(self)
        fused.pw_proj = scale_output(self.pw_proj, fused.pop("layer_scale"))
        return fused


class Keys(nn.Module):
    """Keys or values, of a map made smaller by ``stride``."""

    first = ("proj",)

    def __init__(self, dim: int, key_dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        if stride > 1:
            self.down = ConvNorm(dim, dim, kernel, stride, groups=dim)
        self.proj = Conv2d(dim, key_dim, 1, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B, H / stride, W / stride, key_dim)."""
        return self.proj(self.down(x) if "down" in self else x)


class MultiQuery(nn.Module):
    """Attention of many heads to the same keys and values."""

    last = "output"

    def __init__(self, dim: int, n: dict[str, int]) -> None:
        super().__init__()
        self.heads, self.scale = n["h"], n["d"] ** -0.5
        self.first = () if n["v"] > 1 else ("query", "key", "value")
        self.query: nn.Module = Conv2d(dim, n["h"] * n["d"], 1, bias=False)
        self.key = Keys(dim, n["d"], n["k"], n["v"])
        self.value = Keys(dim, n["d"], n["k"], n["v"])
        self.output = Conv2d(n["h"] * n["d"], n["c"], 1, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, _ = x.shape
        # A copy for each head, among the channels: cheaper than another layout of the map.
        key, value = (
            mx.concatenate([y] * self.heads, axis=-1) for y in (self.key(x), self.value(x))
        )
        q, k, v = (
            y.reshape(B, -1, self.heads, y.shape[3] // self.heads).swapaxes(1, 2)
            for y in (self.query(x), key, value)
        )
        attn = kernels.softmax((q if self.scale == 1 else q * self.scale) @ k.swapaxes(2, 3))
        return self.output((attn @ v).swapaxes(1, 2).reshape(B, H, W, -1))

    def fuse(self) -> MultiQuery:
        """The same with the scale of q in its convolution."""
        fused = copy.copy(self)
        fused.query, fused.scale = scale_output(self.query, mx.array(self.scale)), 1.0
        return fused


def _act(c: MobileNetV4Config) -> nn.Module:
    return GELU() if c.gelu else ReLU()


def _block(c: MobileNetV4Config, kind: str, in_dim: int, n: dict[str, int]) -> nn.Module:
    if kind == "u":
        return Inverted(c, in_dim, n)
    if kind == "m":
        return ScaledResidual(MultiQuery(in_dim, n), n["c"], BatchNorm(in_dim), c.layer_scale)
    return Convs(c, in_dim, n, wide=kind == "e")


class MobileNetV4(ImageModel):
    def __init__(self, config: MobileNetV4Config) -> None:
        super().__init__()
        c, dim = config, config.stem
        self.config = config
        self.stem = ConvNorm(3, dim, 3, 2)
        self.act = _act(c)
        self.stages = []
        for stage in c.blocks:
            blocks = []
            for kind, numbers in stage:
                blocks.append(_block(c, kind, dim, numbers))
                dim = numbers["c"]
            self.stages.append(nn.Sequential(*blocks))
        self.conv_head = ConvNorm(dim, HEAD)
        if c.num_classes:
            self.head = nn.Linear(HEAD, c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to five NHWC maps: the stem's, and the last of each size."""
        x = self.act(self.stem(x))
        *maps, _, last = in_turn([], self.stages, x)
        return [x, *maps, last]

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) last map to the (B, 1280) that the classifier reads."""
        return self.act(self.conv_head(x.mean(axis=(1, 2), keepdims=True)))[:, 0, 0]


_RENAMES = (
    (r"^conv_stem\.", "stem.conv."),
    (r"^bn1\.", "stem.bn."),
    (r"^conv_head\.(?=weight)", "conv_head.conv."),
    (r"^norm_head\.", "conv_head.bn."),
    (r"^classifier\.", "head."),
    (r"^blocks\.(\d+)\.", r"stages.\1.layers."),
    (r"(layers\.\d+)\.conv(_exp)?\.", r"\1.conv1.conv."),
    (r"(layers\.\d+)\.bn1\.", r"\1.conv1.bn."),
    (r"(layers\.\d+)\.conv_pwl\.", r"\1.conv2.conv."),
    (r"(layers\.\d+)\.bn2\.", r"\1.conv2.bn."),
    (r"\.layer_scale\.gamma$", ".layer_scale"),
    (r"\.attn\.(query|output)\.proj\.", r".m.\1."),
    (r"\.attn\.(key|value)\.down_conv\.", r".m.\1.down.conv."),
    (r"\.attn\.(key|value)\.norm\.", r".m.\1.down.bn."),
    (r"\.attn\.(key|value)\.proj\.", r".m.\1.proj."),
)


_WEIGHTS = """
mobilenetv4_conv_small_050.e3000_r224_in1k 224 0.875 half
mobilenetv4_conv_small.e2400_r224_in1k 224 0.875
mobilenetv4_conv_small.e1200_r224_in1k 224 0.875
mobilenetv4_conv_small.e3600_r256_in1k 256 0.95 half
mobilenetv4_conv_medium.e500_r256_in1k 256 0.95
mobilenetv4_conv_medium.e500_r224_in1k 224 0.95
mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k 384 0.95
mobilenetv4_conv_medium.e180_r384_in12k 384 1 classes=11821
mobilenetv4_conv_medium.e180_ad_r384_in12k 384 1 classes=11821
mobilenetv4_conv_medium.e250_r384_in12k 384 1 classes=11821
mobilenetv4_conv_large.e600_r384_in1k 384 0.95 top1=82.952
mobilenetv4_conv_large.e500_r256_in1k 256 0.95 top1=81.862
mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k 256 0.95
mobilenetv4_hybrid_medium.ix_e550_r256_in1k 256 0.95
mobilenetv4_hybrid_medium.ix_e550_r384_in1k 384 0.95
mobilenetv4_hybrid_medium.e500_r224_in1k 224 0.95
mobilenetv4_hybrid_medium.e200_r256_in12k 256 0.95 classes=11821
mobilenetv4_hybrid_large.ix_e600_r384_in1k 384 0.95
mobilenetv4_hybrid_large.e600_r384_in1k 384 0.95 top1=83.8
mobilenetv4_conv_blur_medium.e500_r224_in1k 224 0.95
mobilenetv4_conv_aa_large.e230_r448_in12k_ft_in1k 448 0.95 top1=84.64
mobilenetv4_conv_aa_large.e230_r384_in12k_ft_in1k 384 0.95 top1=84.314
mobilenetv4_conv_aa_large.e600_r384_in1k 384 0.95
mobilenetv4_conv_aa_large.e230_r384_in12k 384 0.95 classes=11821
"""


def _register(
    name: str, params: int, macs: int | None, preprocess: Preprocess, **config: Any
) -> None:
    register_model(
        ModelSpec(
            name=name,
            family="mobilenetv4",
            build=MobileNetV4,
            config=MobileNetV4Config(**config),
            preprocess=preprocess,
            checkpoints=weights_of(name, _WEIGHTS, "apache-2.0"),
            renames=_RENAMES,
            params=params,
            macs=macs,
        )
    )


_LAST = "c:k1c960"
_SMALL: dict[str, Any] = {
    "stages": (
        "c:k3s2c32 c:k1c32",
        "c:k3s2c96 c:k1c64",
        "u:a5k5s2e3c96 u:k3e2c96 u:k3e2c96 u:k3e2c96 u:k3e2c96 u:a3e4c96",
        "u:a3k3s2e6c128 u:a5k5e4c128 u:k5e4c128 u:k5e3c128 u:k3e4c128 u:k3e4c128",
        _LAST,
    )
}
_MEDIUM: dict[str, Any] = {
    "stages": (
        "e:k3s2e4c48",
        "u:a3k5s2e4c80 u:a3k3e2c80",
        "u:a3k5s2e6c160 u:a3k3e4c160 u:a3k3e4c160 u:a3k5e4c160 u:a3k3e4c160 u:a3e4c160 "
        "u:e2c160 u:a3e4c160",
        "u:a5k5s2e6c256 u:a5k5e4c256 u:a3k5e4c256 u:a3k5e4c256 u:e4c256 u:a3e4c256 "
        "u:a3k5e2c256 u:a5k5e4c256 u:e4c256 u:e4c256 u:a5e2c256",
        _LAST,
    )
}
_LARGE: dict[str, Any] = {
    "stem": 24,
    "stages": (
        "e:k3s2e4c48",
        "u:a3k5s2e4c96 u:a3k3e4c96",
        "u:a3k5s2e4c192 u:a3k3e4c192 u:a3k3e4c192 u:a3k3e4c192 u:a3k5e4c192 "
        + "u:a5k3e4c192 " * 5
        + "u:a3e4c192",
        "u:a5k5s2e4c512 u:a5k5e4c512 u:a5k5e4c512 u:a5k5e4c512 u:a5e4c512 u:a5k3e4c512 "
        "u:a5e4c512 u:a5e4c512 u:a5k3e4c512 u:a5k5e4c512 u:a5e4c512 u:a5e4c512 u:a5e4c512",
        _LAST,
    ),
}
_FEW, _MANY = "m:k3h4v2d64c160", "m:k3h8v2d48c192"  # keys of every second position
_HYBRID_MEDIUM: dict[str, Any] = {
    "layer_scale": 1e-5,
    "stages": (
        "e:k3s2e4c48",
        "u:a3k5s2e4c80 u:a3k3e2c80",
        f"u:a3k5s2e6c160 u:e2c160 u:a3k3e4c160 u:a3k5e4c160 {_FEW} u:a3k3e4c160 {_FEW} "
        f"u:a3e4c160 {_FEW} u:a3k3e4c160 {_FEW} u:a3e4c160",
        "u:a5k5s2e6c256 u:a5k5e4c256 u:a3k5e4c256 u:a3k5e4c256 u:e2c256 u:a3k5e2c256 u:e2c256 "
        "u:e4c256 m:k3h4d64c256 u:a3e4c256 m:k3h4d64c256 u:a5k5e4c256 m:k3h4d64c256 "
        "u:a5e4c256 m:k3h4d64c256 u:a5e4c256",
        _LAST,
    ),
}
_HYBRID_LARGE: dict[str, Any] = {
    "stem": 24,
    "gelu": True,
    "layer_scale": 1e-5,
    "stages": (
        "e:k3s2e4c48",
        "u:a3k5s2e4c96 u:a3k3e4c96",
        "u:a3k5s2e4c192 u:a3k3e4c192 u:a3k3e4c192 u:a3k3e4c192 u:a3k5e4c192 u:a5k3e4c192 "
        f"u:a5k3e4c192 {_MANY} u:a5k3e4c192 {_MANY} u:a5k3e4c192 {_MANY} u:a5k3e4c192 "
        f"{_MANY} u:a3e4c192",
        "u:a5k5s2e4c512 u:a5k5e4c512 u:a5k5e4c512 u:a5k5e4c512 u:a5e4c512 u:a5k3e4c512 "
        "u:a5e4c512 u:a5e4c512 u:a5k3e4c512 u:a5k5e4c512" + " m:k3h8d64c512 u:a5e4c512" * 4,
        _LAST,
    ),
}
_224 = Preprocess(crop_pct=0.95)
_256, _384, _448 = (replace(_224, size=size) for size in (256, 384, 448))
_HALF = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

for _name, _params, _macs, _preprocess, _config in (
    ("conv_small_035", 1_910_000, 50_000_000, _HALF, _SMALL | {"width": 0.35}),
    ("conv_small_050", 2_240_000, 70_000_000, _HALF, _SMALL | {"width": 0.5}),
    ("conv_small", 3_770_000, 190_000_000, Preprocess(), _SMALL),
    ("conv_medium", 9_720_000, 1_100_000_000, _256, _MEDIUM),
    ("conv_large", 32_590_000, 6_430_000_000, _384, _LARGE),
    ("hybrid_medium", 11_070_000, 1_290_000_000, _256, _HYBRID_MEDIUM),
    ("hybrid_large", 37_760_000, None, _384, _HYBRID_LARGE),
    ("conv_aa_medium", 9_720_000, 1_580_000_000, _256, _MEDIUM | {"blur": "mean"}),
    ("conv_blur_medium", 9_720_000, 1_220_000_000, _224, _MEDIUM | {"blur": "binomial"}),
    ("conv_aa_large", 32_590_000, None, _448, _LARGE | {"blur": "mean"}),
    ("hybrid_medium_075", 7_310_000, 660_000_000, _224, _HYBRID_MEDIUM | {"width": 0.75}),
    ("hybrid_large_075", 22_750_000, 2_060_000_000, _256, _HYBRID_LARGE | {"width": 0.75}),
):
    _register(f"mobilenetv4_{_name}", _params, _macs, _preprocess, **_config)
