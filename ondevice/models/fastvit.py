"""FastViT: a network trained with many branches and run without; mobileclip.py has more.

Paper: https://arxiv.org/abs/2303.14189
Code: https://github.com/apple/ml-fastvit; names as in timm/models/fastvit.py and ``_renames``
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..config.labels import IMAGENET1K
from ..cpu import kernels
from ..nn.batch_norm import BatchNorm
from ..nn.drop_path import DropPath
from ..nn.image_model import ImageModel
from ..nn.layers import (
    Conv2d,
    ConvNorm,
    Kernel,
    Residual,
    affine_input,
    make_divisible,
    norm_affine,
    scale_output,
)
from ..nn.reparam import MobileOne, RepMixer
from ..registry import Checkpoint, ModelSpec, Shapes, register_model


@dataclass(frozen=True, kw_only=True)
class FastViTConfig(PyramidConfig):
    depth: tuple[int, ...]
    mlp_ratio: int = 4
    attention: tuple[bool, ...] = (False, False, False, True)  # and RepCPE before it
    norm: Literal["batch", "layer"] = "batch"  # before attention
    se_downsample: tuple[bool, ...] = ()
    downsample_act: bool = False  # after the large kernel of a step down
    stem_scale: bool = True  # the stem's convolutions have a 1x1 branch
    head_bias: bool = True
    tokens: bool = False  # model(x) gives (B, N, C): the last map's pixels, row by row
    inference_mode: bool = False  # built with the branches merged

    @property
    def default_output(self) -> str:
        return "image_features" if self.tokens else ""  # as Apple's app calls them

    @property
    def stride(self) -> int:
        return self.feature_info[-1].stride


class ConvMlp(nn.Module):
    """A large depthwise convolution, then two 1x1 with a GELU between."""

    def __init__(self, dim: int, hidden: int, kernel: Kernel = 7) -> None:
        super().__init__()
        self.conv = ConvNorm(dim, dim, kernel, groups=dim)
        self.fc1 = Conv2d(dim, hidden, 1)
        self.fc2: nn.Module = Conv2d(hidden, dim, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return kernels.by_place(lambda x: self.fc2(kernels.gelu(self.fc1(x))), self.conv(x))


class Attention(DropPath):
    """Multi-head self-attention over all pixels, with its norm, scale and residual."""

    def __init__(self, dim: int, norm: str, head_dim: int = 32) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.scale = head_dim**-0.5
        self.norm: nn.Module = (
            nn.LayerNorm(dim, eps=1e-5) if norm == "layer" else BatchNorm(dim)
        )
        self.qkv: nn.Module = Conv2d(dim, 3 * dim, 1, bias=False)
        self.proj: nn.Module = Conv2d(dim, dim, 1)
        self.layer_scale = mx.ones(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, C = x.shape
        heads = self.qkv(self.norm(x)).reshape(B, H * W, -1, self.head_dim).swapaxes(1, 2)
        q, k, v = mx.split(heads, 3, axis=1)
        q = q if self.scale == 1 else q * self.scale
        y = self.proj(kernels.attention(q, k, v).swapaxes(1, 2).reshape(B, H, W, C))
        return x + self.dropped(y * self.layer_scale if "layer_scale" in self else y)

    def fuse(self) -> Attention:
        """The norm (of a layer norm, its affine part) and q's scale go into qkv."""
        if "layer_scale" not in self:
            return self
        fused = copy.copy(self)
        if isinstance(self.norm, nn.BatchNorm):
            affine = norm_affine(self.norm)
            fused.norm = nn.Identity()
        else:
            affine = (self.norm.weight, self.norm.bias)
            fused.norm = copy.copy(self.norm)
            del fused.norm.weight, fused.norm.bias
        qkv = affine_input(self.qkv, *affine)
        is_q = mx.arange(3 * len(self.layer_scale)) < len(self.layer_scale)
        scale = mx.where(is_q, self.scale, 1.0).astype(qkv.weight.dtype)
        fused.qkv, fused.scale = scale_output(qkv, scale), 1.0
        fused.proj = scale_output(self.proj, fused.pop("layer_scale"))
        return fused


class Block(DropPath):
    """Mixes pixels, then channels: ``x = token_mixer(x)``, ``x + layer_scale * mlp(x)``."""

    def __init__(
        self, dim: int, hidden: int, token_mixer: nn.Module, kernel: Kernel = 7
    ) -> None:
        super().__init__()
        self.token_mixer = token_mixer
        self.mlp = ConvMlp(dim, hidden, kernel)
        self.layer_scale = mx.ones(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        x = self.token_mixer(x)
        y = self.mlp(x)
        return x + self.dropped(y * self.layer_scale if "layer_scale" in self else y)

    def fuse(self) -> Block:
        """The same with the layer scale in the MLP's last layer."""
        if "layer_scale" not in self:
            return self
        fused = copy.copy(self)
        fused.mlp = copy.copy(self.mlp)
        fused.mlp.fc2 = scale_output(self.mlp.fc2, fused.pop("layer_scale"))
        return fused


class Stage(nn.Module):
    """A step down (but for the first), positions (with attention), blocks."""

    def __init__(self, config: FastViTConfig, index: int) -> None:
        super().__init__()
        c, dim = config, config.embed_dim[index]
        fused = c.inference_mode
        self.downsample = _downsample(c, index) if index else []
        self.pos_emb = _depthwise(dim, 7, fused=fused) if c.attention[index] else nn.Identity()
        self.blocks = []
        for _ in range(c.depth[index]):
            mixer: nn.Module = Attention(dim, c.norm) if c.attention[index] else RepMixer(dim)
            if fused and not c.attention[index]:
                mixer = _depthwise(dim, 3, fused=True)
            self.blocks.append(Block(dim, c.mlp_ratio * dim, mixer))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / s, W / s, C): s is 2, or 1 in the first stage."""
        for layer in [*self.downsample, self.pos_emb, *self.blocks]:
            x = layer(x)
        return x


def _depthwise(dim: int, kernel: int, *, fused: bool) -> nn.Module:
    """``x + conv(x)`` with a depthwise convolution; ``fused``: the sum is in its kernel."""
    conv = Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
    return conv if fused else Residual(conv)


def _downsample(c: FastViTConfig, index: int) -> list[nn.Module]:
    in_dim, dim = c.embed_dim[index - 1 : index + 1]
    where = [i for i, flag in enumerate(c.se_downsample) if flag]
    se_dim = make_divisible(dim / 4) if index in where else 0
    return [
        MobileOne(
            in_dim,
            dim,
            kernel=7,
            stride=2,
            groups=in_dim,
            scale=3,
            se_dim=se_dim,
            act=c.downsample_act,
            fused=c.inference_mode,
        ),
        MobileOne(dim, dim, kernel=1, identity=True, fused=c.inference_mode),
    ]


class FastViT(ImageModel):
    def __init__(self, config: FastViTConfig) -> None:
        super().__init__()
        c, stem, last = config, config.embed_dim[0], config.embed_dim[-1]
        self.config = config
        fused, scale = c.inference_mode, int(c.stem_scale)
        self.stem = [
            MobileOne(3, stem, 3, 2, scale=scale, fused=fused),
            MobileOne(stem, stem, 3, 2, groups=stem, scale=scale, fused=fused),
            MobileOne(stem, stem, 1, identity=True, fused=fused),
        ]
        self.stages = [Stage(c, i) for i in range(len(c.depth))]
        self.final_conv = MobileOne(
            last, 2 * last, 3, groups=last, se_dim=2 * last // 16, fused=fused
        )
        if c.num_classes:
            self.head = nn.Linear(2 * last, c.num_classes, bias=c.head_bias)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the NHWC map of every stage."""
        for layer in self.stem:
            x = layer(x)
        return list(accumulate(self.stages, lambda x, stage: stage(x), initial=x))[1:]

    def final(self, x: mx.array) -> mx.array:
        """(B, H, W, C) last map to (B, H, W, 2C), to be pooled."""
        return self.final_conv(x)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, num_classes) logits, or (B, N, C) with ``tokens``."""
        return self.map_tokens(x) if self.config.tokens else super().__call__(x)


_KEY_PREFIX = (
    r"((module|model)\.)?(image_encoder\.model|visual\.trunk|"
    r"vision_tower\.(vision_tower\.model|timm_model|vision_model))\."
)


def _renames(attention: tuple[bool, ...]) -> tuple[tuple[str, str], ...]:
    """Names of Apple's files become timm's, timm's become ours."""
    return (
        (r"^patch_embed\.(blocks\.)?", "stem."),
        *_network(attention),
        (r"^conv_exp\.", "final_conv."),
        (r"\.rbr_conv\.", ".conv_kxk."),
        (r"\.rbr_scale\.", ".conv_scale."),
        (r"\.rbr_skip\.", ".identity."),
        (r"\.lkb_origin\.", ".large_conv."),
        (r"\.lkb_reparam\.", ".reparam_conv."),
        (r"\.convffn\.", ".mlp."),
        (r"\.se\.reduce\.", ".se.fc1."),
        (r"\.se\.expand\.", ".se.fc2."),
        (r"^head\.proj$", "head.weight"),
        # timm's to ours: one block for all kinds of attention, one for all branched convs.
        (r"downsample\.proj\.", "downsample."),
        (r"\.large_conv\.", ".conv_kxk.0."),
        (r"\.small_conv\.", ".conv_scale."),
        (r"\.gamma$", ""),
        (r"layer_scale_1$", "token_mixer.layer_scale"),
        (r"layer_scale_2$", "layer_scale"),
        (r"(blocks\.\d+)\.norm\.", r"\1.token_mixer.norm."),
        (r"token_mixer\.norm\.identity\.", "token_mixer.norm."),
        (r"pos_emb\.(pe|pos_enc)\.", "pos_emb.m."),
        (r"(token_mixer|pos_emb)\.reparam_conv\.", r"\1."),
        (r"^head\.fc\.", "head."),
    )


def _network(attention: tuple[bool, ...]) -> tuple[tuple[str, str], ...]:
    """Apple's one flat list: step down, positions, blocks of each stage, if it has them."""
    parts = [
        part
        for i, attends in enumerate(attention)
        for part in (
            *([f"stages.{i}.downsample."] if i else []),
            *([f"stages.{i}.pos_emb."] if attends else []),
            f"stages.{i}.blocks.",
        )
    ]
    return tuple((rf"^network\.{n}\.", part) for n, part in enumerate(parts))


def _adapt(shapes: Shapes) -> dict[str, Any]:
    """Which form a file has: with or without branches, CLIP's projection without bias."""
    return {
        "inference_mode": "stem.0.reparam_conv.weight" in shapes,
        "head_bias": "head.bias" in shapes or "head.weight" not in shapes,
    }


def register(
    name: str,
    *checkpoints: Checkpoint,
    config: FastViTConfig,
    preprocess: Preprocess,
    params: int,
    macs: int | None,
) -> None:
    """Add a variant with its published weights to the table."""
    register_model(
        ModelSpec(
            name=name,
            family="fastvit",
            build=FastViT,
            config=config,
            preprocess=preprocess,
            checkpoints=checkpoints,
            key_prefix=_KEY_PREFIX,
            renames=_renames(config.attention),
            transposes=r"^head\.proj$",
            adapt=_adapt,
            params=params,
            macs=macs,
        )
    )


# What tells the variants apart: widths and blocks of the stages, published figures.

_REPMIXER_ONLY = (False, False, False, False)
_WIDTHS = (64, 128, 256, 512)


def _classifier(
    name: str,
    top1: tuple[float, float],  # trained on labels; distilled
    params: int,
    macs: int | None,
    config: FastViTConfig,
    crop_pct: float = 0.9,
) -> None:
    register(
        name,
        *(
            Checkpoint(
                tag=tag,
                repo=f"timm/{name}.{tag}",
                license="fastvit-license",
                top1=acc,
                labels=IMAGENET1K,
            )
            for tag, acc in zip(("apple_in1k", "apple_dist_in1k"), top1, strict=True)
        ),
        config=config,
        preprocess=Preprocess(size=256, crop_pct=crop_pct),
        params=params,
        macs=macs,
    )


_classifier(
    "fastvit_t8",
    (76.184, 77.17),
    params=4_030_000,
    macs=690_000_000,
    config=FastViTConfig(
        embed_dim=(48, 96, 192, 384),
        depth=(2, 2, 4, 2),
        mlp_ratio=3,
        attention=_REPMIXER_ONLY,
    ),
)
_classifier(
    "fastvit_t12",
    (79.276, 80.364),
    params=7_550_000,
    macs=1_390_000_000,
    config=FastViTConfig(
        embed_dim=_WIDTHS, depth=(2, 2, 6, 2), mlp_ratio=3, attention=_REPMIXER_ONLY
    ),
)
_classifier(
    "fastvit_s12",
    (79.882, 81.074),
    params=9_470_000,
    macs=1_800_000_000,
    config=FastViTConfig(embed_dim=_WIDTHS, depth=(2, 2, 6, 2), attention=_REPMIXER_ONLY),
)
_classifier(
    "fastvit_sa12",
    (80.846, 81.838),
    params=11_580_000,
    macs=1_940_000_000,
    config=FastViTConfig(embed_dim=_WIDTHS, depth=(2, 2, 6, 2)),
)
_classifier(
    "fastvit_sa24",
    (82.706, 83.368),
    params=21_550_000,
    macs=3_770_000_000,
    config=FastViTConfig(embed_dim=_WIDTHS, depth=(4, 4, 12, 4)),
)
_classifier(
    "fastvit_sa36",
    (83.502, 84.028),
    params=31_530_000,
    macs=5_590_000_000,
    config=FastViTConfig(embed_dim=_WIDTHS, depth=(6, 6, 18, 6)),
)
_classifier(
    "fastvit_ma36",
    (83.884, 84.608),
    params=44_070_000,
    macs=7_820_000_000,
    config=FastViTConfig(embed_dim=(76, 152, 304, 608), depth=(6, 6, 18, 6)),
    crop_pct=0.95,
)
