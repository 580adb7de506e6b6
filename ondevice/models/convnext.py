"""ConvNeXt and ConvNeXtV2: large depthwise kernels, then an MLP for each position.

Papers: https://arxiv.org/abs/2201.03545, https://arxiv.org/abs/2301.00808, and
https://arxiv.org/abs/2508.10104 (DINOv3's weights)
Code: https://github.com/facebookresearch/ConvNeXt (MIT), ConvNeXt-V2; names follow
timm/models/convnext.py
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import GELU, Conv2d, make_divisible
from ..nn.residual import ScaledResidual
from ..nn.transformer import Mlp
from ..registry import ModelSpec, Shapes, register_model, weights_of

Norm = Literal["layer", "simple", "rms"]


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig(PyramidConfig):
    depth: tuple[int, ...]
    response_norm: bool = False  # of the second version, in place of the layer scale
    norm: Norm = "layer"
    eps: float = 1e-6
    stem: Literal["patch", "overlap", "overlap_tiered", "overlap_act"] = "patch"
    norm_first: bool = False  # before the pool
    hidden: int = 0  # of the head
    final_norm: bool = True  # files of masked autoencoders have none

    @property
    def stride(self) -> int:
        return self.feature_info[-1].stride


class ScaleNorm(nn.Module):
    """Channels over the root of their variance, or mean square, but not centred."""

    def __init__(self, dim: int, eps: float, kind: Norm) -> None:
        super().__init__()
        self.eps, self.kind = eps, kind
        self.weight = mx.ones(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(..., C) to the same shape."""
        if self.kind == "rms":
            return mx.fast.rms_norm(x, self.weight, self.eps)
        return x * mx.rsqrt(x.var(axis=-1, keepdims=True, ddof=1) + self.eps) * self.weight


def _norm(c: ConvNeXtConfig, dim: int) -> nn.Module:
    return nn.LayerNorm(dim, c.eps) if c.norm == "layer" else ScaleNorm(dim, c.eps, c.norm)


class ResponseNormMlp(Mlp):
    """Hidden channels gain by how strong they are in the whole map, beside the others."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(dim, hidden)
        self.grn_weight = mx.zeros(hidden)
        self.grn_bias = mx.zeros(hidden)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        x = self.act(self.fc1(x))
        strength = mx.sqrt(mx.square(x).sum(axis=(1, 2), keepdims=True))
        share = strength / (strength.mean(axis=-1, keepdims=True) + 1e-6)
        return self.fc2(x * (1 + self.grn_weight * share) + self.grn_bias)


class Block(nn.Module):
    def __init__(self, c: ConvNeXtConfig, dim: int) -> None:
        super().__init__()
        self.conv_dw = Conv2d(dim, dim, 7, padding=3, groups=dim)
        mlp = (ResponseNormMlp if c.response_norm else Mlp)(dim, 4 * dim)
        scale = None if c.response_norm else 1e-6
        self.mlp = ScaledResidual(mlp, dim, _norm(c, dim), scale)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return x + self.mlp.branch(self.conv_dw(x))


class Stage(DownStage):
    """A step down, but for the first, and blocks."""

    def __init__(self, c: ConvNeXtConfig, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        down = nn.Sequential(_norm(c, in_dim), Conv2d(in_dim, dim, 2, 2))
        self.downsample = down if i else nn.Identity()
        self.blocks = [Block(c, dim) for _ in range(c.depth[i])]


def _stem(c: ConvNeXtConfig) -> list[nn.Module]:
    dim = c.embed_dim[0]
    if c.stem == "patch":
        return [Conv2d(3, dim, 4, 4), _norm(c, dim)]
    middle = make_divisible(dim // 2) if c.stem == "overlap_tiered" else dim
    act = [GELU()] if c.stem == "overlap_act" else []
    return [Conv2d(3, middle, 3, 2, 1), *act, Conv2d(middle, dim, 3, 2, 1), _norm(c, dim)]


class ConvNeXt(ImageModel):
    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__()
        c, last = config, config.embed_dim[-1]
        self.config = config
        self.stem = _stem(c)
        dims = pairwise([c.embed_dim[0], *c.embed_dim])
        self.stages = [Stage(c, i, *pair) for i, pair in enumerate(dims)]
        self.norm = _norm(c, last) if c.final_norm else nn.Identity()
        if c.hidden:
            self.pre_logits = nn.Linear(last, c.hidden)
        if c.num_classes:
            self.head = nn.Linear(c.hidden or last, c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn(self.stem, self.stages, x)

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map, normalized where that comes before the pool."""
        return self.norm(x) if self.config.norm_first else x

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) last map to the (B, C) that the classifier reads."""
        x = super().pool(x)
        x = x if self.config.norm_first else self.norm(x)
        return GELU()(self.pre_logits(x)) if "pre_logits" in self else x


_RENAMES = (
    (r"\.downsample\.(\d)\.", r".downsample.layers.\1."),
    (r"(blocks\.\d+)\.norm\.", r"\1.mlp.norm."),
    (r"(blocks\.\d+)\.mlp\.(fc\d|grn)\b", r"\1.mlp.m.\2"),
    (r"\.grn\.", ".grn_"),
    (r"(blocks\.\d+)\.gamma$", r"\1.mlp.layer_scale"),
    (r"^(head\.norm|norm_pre)\.", "norm."),
    (r"^head\.pre_logits\.fc\.", "pre_logits."),
    (r"^head\.fc\.", "head."),
)


def _adapt(shapes: Shapes) -> dict[str, Any]:
    """Files of masked autoencoders end with the last stage."""
    return {"final_norm": "norm.weight" in shapes}


def _register(name: str, params: int, macs: int | None, **facts: Any) -> None:
    license = "cc-by-nc-4.0" if name.startswith("convnextv2") else "apache-2.0"
    checkpoints = weights_of(name, _WEIGHTS, license)
    size = 256 if "_mlp" in name or "xxl" in name else 224  # of those from CLIP only
    register_model(
        ModelSpec(
            name=name,
            family=name.partition("_")[0],
            build=ConvNeXt,
            config=ConvNeXtConfig(**facts),
            preprocess=Preprocess(size=size),
            checkpoints=checkpoints,
            renames=_RENAMES,
            adapt=_adapt,
            params=params,
            macs=macs,
        )
    )


_WEIGHTS = """\
convnext_tiny.in12k_ft_in1k 224 0.95
convnext_small.in12k_ft_in1k 224 0.95
convnext_zepto_rms.ra4_e3600_r224_in1k 224 0.875 half
convnext_zepto_rms_ols.ra4_e3600_r224_in1k 224 0.9 half
convnext_atto.d2_in1k 224 0.875
convnext_atto_ols.a2_in1k 224 0.875
convnext_femto.d1_in1k 224 0.875
convnext_femto_ols.d1_in1k 224 0.875
convnext_pico.d1_in1k 224 0.875
convnext_pico_ols.d1_in1k 224 0.95
convnext_nano.in12k_ft_in1k 224 0.95
convnext_nano.d1h_in1k 224 0.95
convnext_nano_ols.d1h_in1k 224 0.95
convnext_tiny_hnf.a2h_in1k 224 0.95
convnext_nano.r384_in12k_ft_in1k 384 1
convnext_tiny.in12k_ft_in1k_384 384 1 squash top1=85.122
convnext_small.in12k_ft_in1k_384 384 1 squash top1=86.182
convnext_nano.in12k 224 0.95 classes=11821
convnext_nano.r384_in12k 384 1 classes=11821
convnext_nano.r384_ad_in12k 384 1 classes=11821
convnext_tiny.in12k 224 0.95 classes=11821
convnext_small.in12k 224 0.95 classes=11821
convnext_tiny.fb_in22k_ft_in1k 224 0.875 top1=82.9
convnext_small.fb_in22k_ft_in1k 224 0.875 top1=84.6
convnext_base.fb_in22k_ft_in1k 224 0.875 top1=85.8
convnext_large.fb_in22k_ft_in1k 224 0.875 top1=86.6
convnext_xlarge.fb_in22k_ft_in1k 224 0.875 top1=87.0
convnext_tiny.fb_in1k 224 0.875 top1=82.1
convnext_small.fb_in1k 224 0.875 top1=83.1
convnext_base.fb_in1k 224 0.875 top1=83.8
convnext_large.fb_in1k 224 0.875 top1=84.3
convnext_tiny.fb_in22k_ft_in1k_384 384 1 squash top1=84.088
convnext_small.fb_in22k_ft_in1k_384 384 1 squash top1=85.778
convnext_base.fb_in22k_ft_in1k_384 384 1 squash top1=86.796
convnext_large.fb_in22k_ft_in1k_384 384 1 squash top1=87.472
convnext_xlarge.fb_in22k_ft_in1k_384 384 1 squash top1=87.752
convnext_tiny.fb_in22k 224 0.875 classes=21841
convnext_small.fb_in22k 224 0.875 classes=21841
convnext_base.fb_in22k 224 0.875 classes=21841
convnext_large.fb_in22k 224 0.875 classes=21841
convnext_xlarge.fb_in22k 224 0.875 classes=21841
convnextv2_nano.fcmae_ft_in22k_in1k 224 0.875 top1=82.1
convnextv2_nano.fcmae_ft_in22k_in1k_384 384 1 squash top1=83.374
convnextv2_tiny.fcmae_ft_in22k_in1k 224 0.875 top1=83.9
convnextv2_tiny.fcmae_ft_in22k_in1k_384 384 1 squash top1=85.106
convnextv2_base.fcmae_ft_in22k_in1k 224 0.875 top1=86.8
convnextv2_base.fcmae_ft_in22k_in1k_384 384 1 squash top1=87.644
convnextv2_large.fcmae_ft_in22k_in1k 224 0.875 top1=87.3
convnextv2_large.fcmae_ft_in22k_in1k_384 384 1 squash top1=88.198
convnextv2_huge.fcmae_ft_in22k_in1k_384 384 1 squash top1=88.67
convnextv2_huge.fcmae_ft_in22k_in1k_512 512 1 squash top1=88.858
convnextv2_atto.fcmae_ft_in1k 224 0.875 top1=76.7
convnextv2_femto.fcmae_ft_in1k 224 0.875 top1=78.5
convnextv2_pico.fcmae_ft_in1k 224 0.875 top1=80.3
convnextv2_nano.fcmae_ft_in1k 224 0.875 top1=81.9
convnextv2_tiny.fcmae_ft_in1k 224 0.875 top1=83.0
convnextv2_base.fcmae_ft_in1k 224 0.875 top1=84.9
convnextv2_large.fcmae_ft_in1k 224 0.875 top1=85.8
convnextv2_huge.fcmae_ft_in1k 224 0.875 top1=86.3
convnextv2_atto.fcmae 224 0.875 classes=0
convnextv2_femto.fcmae 224 0.875 classes=0
convnextv2_pico.fcmae 224 0.875 classes=0
convnextv2_nano.fcmae 224 0.875 classes=0
convnextv2_tiny.fcmae 224 0.875 classes=0
convnextv2_base.fcmae 224 0.875 classes=0
convnextv2_large.fcmae 224 0.875 classes=0
convnextv2_huge.fcmae 224 0.875 classes=0
convnext_base.clip_laion2b_augreg_ft_in12k_in1k 256 1 top1=86.37 clip
convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384 384 1 squash top1=87.134 clip
convnext_large_mlp.clip_laion2b_soup_ft_in12k_in1k_320 320 1 top1=87.958 clip
convnext_large_mlp.clip_laion2b_soup_ft_in12k_in1k_384 384 1 squash top1=88.306 clip
convnext_base.clip_laion2b_augreg_ft_in1k 256 1 top1=86.158 clip
convnext_base.clip_laiona_augreg_ft_in1k_384 384 1 top1=86.502 clip
convnext_large_mlp.clip_laion2b_augreg_ft_in1k 256 1 top1=87.334 clip
convnext_large_mlp.clip_laion2b_augreg_ft_in1k_384 384 1 squash top1=87.848 clip
convnext_xxlarge.clip_laion2b_soup_ft_in1k 256 1 top1=88.604 clip
convnext_base.clip_laion2b_augreg_ft_in12k 256 1 classes=11821 clip
convnext_large_mlp.clip_laion2b_soup_ft_in12k_320 320 1 classes=11821 clip
convnext_large_mlp.clip_laion2b_augreg_ft_in12k_384 384 1 squash classes=11821 clip
convnext_large_mlp.clip_laion2b_soup_ft_in12k_384 384 1 squash classes=11821 clip
convnext_xxlarge.clip_laion2b_soup_ft_in12k 256 1 classes=11821 clip
convnext_base.clip_laion2b 256 1 classes=640 clip
convnext_base.clip_laion2b_augreg 256 1 classes=640 clip
convnext_base.clip_laiona 256 1 classes=640 clip
convnext_base.clip_laiona_320 320 1 classes=640 clip
convnext_base.clip_laiona_augreg_320 320 1 classes=640 clip
convnext_large_mlp.clip_laion2b_augreg 256 1 classes=768 clip
convnext_large_mlp.clip_laion2b_ft_320 320 1 classes=768 clip
convnext_large_mlp.clip_laion2b_ft_soup_320 320 1 classes=768 clip
convnext_xxlarge.clip_laion2b_soup 256 1 classes=1024 clip
convnext_xxlarge.clip_laion2b_rewind 256 1 classes=1024 clip
convnext_tiny.dinov3_lvd1689m 224 1 classes=0 license=dinov3-license
convnext_small.dinov3_lvd1689m 224 1 classes=0 license=dinov3-license
convnext_base.dinov3_lvd1689m 224 1 classes=0 license=dinov3-license
convnext_large.dinov3_lvd1689m 224 1 classes=0 license=dinov3-license
convnext_tiny.eupe_lvd1689m 256 1 classes=0 license=fair-noncommercial-research-license
convnext_small.eupe_lvd1689m 256 1 classes=0 license=fair-noncommercial-research-license
convnext_base.eupe_lvd1689m 256 1 classes=0 license=fair-noncommercial-research-license
"""

_ATTO: dict[str, Any] = {"embed_dim": (40, 80, 160, 320), "depth": (2, 2, 6, 2)}
_FEMTO: dict[str, Any] = {"embed_dim": (48, 96, 192, 384), "depth": (2, 2, 6, 2)}
_PICO: dict[str, Any] = {"embed_dim": (64, 128, 256, 512), "depth": (2, 2, 6, 2)}
_NANO: dict[str, Any] = {"embed_dim": (80, 160, 320, 640), "depth": (2, 2, 8, 2)}
_TINY: dict[str, Any] = {"embed_dim": (96, 192, 384, 768), "depth": (3, 3, 9, 3)}
_SMALL: dict[str, Any] = {"embed_dim": (96, 192, 384, 768), "depth": (3, 3, 27, 3)}
_BASE: dict[str, Any] = {"embed_dim": (128, 256, 512, 1024), "depth": (3, 3, 27, 3)}
_LARGE: dict[str, Any] = {"embed_dim": (192, 384, 768, 1536), "depth": (3, 3, 27, 3)}
_XLARGE: dict[str, Any] = {"embed_dim": (256, 512, 1024, 2048), "depth": (3, 3, 27, 3)}
_XXLARGE: dict[str, Any] = {"embed_dim": (384, 768, 1536, 3072), "depth": (3, 4, 30, 3)}
_HUGE: dict[str, Any] = {"embed_dim": (352, 704, 1408, 2816), "depth": (3, 3, 27, 3)}
_ZEPTO: dict[str, Any] = {"embed_dim": (32, 64, 128, 256), "depth": (2, 2, 4, 2)}

_register("convnext_zepto_rms", 2_160_000, 300_000_000, norm="simple", **_ZEPTO)
_register(
    "convnext_zepto_rms_ols",
    2_160_000,
    340_000_000,
    norm="simple",
    stem="overlap_act",
    **_ZEPTO,
)
_register("convnext_atto", 3_700_000, 550_000_000, **_ATTO)
_register("convnext_atto_ols", 3_700_000, 580_000_000, stem="overlap_tiered", **_ATTO)
_register("convnext_atto_rms", 3_690_000, 550_000_000, norm="rms", **_ATTO)
_register("convnext_femto", 5_220_000, 790_000_000, **_FEMTO)
_register("convnext_femto_ols", 5_230_000, 820_000_000, stem="overlap_tiered", **_FEMTO)
_register("convnext_pico", 9_050_000, 1_370_000_000, **_PICO)
_register("convnext_pico_ols", 9_060_000, 1_430_000_000, stem="overlap_tiered", **_PICO)
_register("convnext_nano", 15_590_000, 2_460_000_000, **_NANO)
_register("convnext_nano_ols", 15_650_000, 2_650_000_000, stem="overlap", **_NANO)
_register("convnext_tiny_hnf", 28_590_000, 4_470_000_000, norm_first=True, **_TINY)
_register("convnext_tiny", 28_590_000, 4_470_000_000, **_TINY)
_register("convnext_small", 50_220_000, 8_710_000_000, **_SMALL)
_register("convnext_base", 88_590_000, 15_380_000_000, **_BASE)
_register("convnext_large", 197_770_000, 34_400_000_000, **_LARGE)
_register("convnext_large_mlp", 200_130_000, 44_940_000_000, hidden=1536, **_LARGE)
_register("convnext_xlarge", 350_200_000, 60_980_000_000, **_XLARGE)
_register("convnext_xxlarge", 846_470_000, 198_090_000_000, eps=1e-5, **_XXLARGE)
for _name, _kind, _params, _macs in (
    ("atto", _ATTO, 3_710_000, 550_000_000),
    ("femto", _FEMTO, 5_230_000, 790_000_000),
    ("pico", _PICO, 9_070_000, 1_370_000_000),
    ("nano", _NANO, 15_620_000, 2_460_000_000),
    ("tiny", _TINY, 28_640_000, 4_470_000_000),
    ("small", _SMALL, 50_320_000, 8_710_000_000),
    ("base", _BASE, 88_720_000, 15_380_000_000),
    ("large", _LARGE, 197_960_000, 34_400_000_000),
    ("huge", _HUGE, 660_290_000, 115_000_000_000),
):
    _register(f"convnextv2_{_name}", _params, _macs, response_norm=True, **_kind)
