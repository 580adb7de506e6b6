"""DaViT: attention within windows in turn with attention between channels.

Papers: https://arxiv.org/abs/2204.03645, https://arxiv.org/abs/2311.06242 (Florence-2)
Code: https://github.com/dingmyu/davit (MIT); names follow timm/models/davit.py
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..cpu import kernels
from ..nn.conditional_positions import ConditionalPositions
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import Conv2d
from ..nn.patch_embed import PatchEmbed
from ..nn.residual import ScaledResidual
from ..nn.transformer import JointAttention, Mlp
from ..nn.windows import WindowAttention, pad_to_multiple
from ..registry import ModelSpec, register_model, timm_weights

HEAD_DIM = 32
PATCH = 4  # pixels a side of the first map's positions


@dataclass(frozen=True, kw_only=True)
class DaViTConfig(PyramidConfig):
    depth: tuple[int, ...]
    window: int = 7
    kernel: int = 2  # of the steps down
    queries: bool = False  # channels attend as queries to keys, their scores a mean
    affine: bool = True  # the norm behind the pool has a scale and a shift

    @property
    def stride(self) -> int:
        return 1  # what is missing to whole patches is padded


class ChannelAttention(JointAttention):
    """Attention of channels to those of their head, by how alike they are in all positions.

    The paper's has keys attend to values, and mixes queries; with ``queries`` as usual.
    """

    scaled = 1

    def __init__(self, dim: int, queries: bool) -> None:
        super().__init__(dim, dim // HEAD_DIM)
        self.queries = queries
        self.scale = 1.0 if queries else self.scale  # then it is the image's

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        q, k, v = self.heads(x)
        a, b, c = (q, k, v) if self.queries else (k, v, q)
        scale = q.shape[2] ** -0.5 if self.queries else self.scale
        scores = kernels.sum_of_products(a if scale == 1 else a * scale, b)
        y = kernels.softmax(scores, precise=True) @ c.swapaxes(2, 3)
        return self.proj(y.transpose(0, 3, 1, 2).reshape(x.shape))


class Block(nn.Module):
    """Attention and an MLP, each behind a convolution that finds positions."""

    def __init__(self, attn: nn.Module, dim: int) -> None:
        super().__init__()
        self.cpe1 = ConditionalPositions(dim)
        self.mixer = ScaledResidual(attn, dim, nn.LayerNorm(dim), None)
        self.cpe2 = ConditionalPositions(dim)
        self.mlp = ScaledResidual(Mlp(dim, 4 * dim), dim, nn.LayerNorm(dim), None)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.mlp(self.cpe2(self.mixer(self.cpe1(x))))


def _dual_block(c: DaViTConfig, dim: int) -> nn.Sequential:
    spatial = WindowAttention(dim, dim // HEAD_DIM, c.window)
    return nn.Sequential(Block(spatial, dim), Block(ChannelAttention(dim, c.queries), dim))


class Downsample(nn.Module):
    def __init__(self, in_dim: int, dim: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.proj = Conv2d(in_dim, dim, kernel, 2, (kernel - 1) // 2)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / 2, W / 2, C), halves rounded up."""
        return self.proj(pad_to_multiple(self.norm(x), 2))


class Stage(DownStage):
    def __init__(self, c: DaViTConfig, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        self.downsample = Downsample(in_dim, dim, c.kernel) if i else nn.Identity()
        self.blocks = [_dual_block(c, dim) for _ in range(c.depth[i])]


class DaViT(ImageModel):
    def __init__(self, config: DaViTConfig) -> None:
        super().__init__()
        c, dims = config, config.embed_dim
        self.config = config
        self.stem = PatchEmbed(3, dims[0], 7, PATCH, 3)
        pairs = pairwise([dims[0], *dims])
        self.stages = [Stage(c, i, *pair) for i, pair in enumerate(pairs)]
        self.norm = nn.LayerNorm(dims[-1], affine=c.affine)
        if c.num_classes:
            self.head = nn.Linear(dims[-1], c.num_classes)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to four NHWC maps."""
        return in_turn([self.stem], self.stages, pad_to_multiple(x, PATCH))

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) last map to (B, C), normalized."""
        return self.norm(super().pool(x))


_RENAMES = (  # of the authors' and of Florence-2's names, too
    (r"^(patch_embeds|convs)\.0\.", "stem."),
    (r"^(patch_embeds|convs)\.(\d)\.", r"stages.\2.downsample."),
    (r"^(stem|stages\.\d\.downsample)\.conv\.", r"\1.proj."),
    (r"^(main_)?blocks\.(\d)\.", r"stages.\2.blocks."),
    (r"(blocks\.\d+)\.(0|spatial_block)\.", r"\1.layers.0."),
    (r"(blocks\.\d+)\.(1|channel_block)\.", r"\1.layers.1."),
    (r"\.(cpe\.0\.proj|conv1\.fn\.dw)\.", ".cpe1.proj."),
    (r"\.(cpe\.1\.proj|conv2\.fn\.dw)\.", ".cpe2.proj."),
    (r"\.((window|channel)_attn\.norm|norm1)\.", ".mixer.norm."),
    (r"\.((window|channel)_attn\.fn|attn)\.", ".mixer.m."),
    (r"\.(ffn\.norm|norm2)\.", ".mlp.norm."),
    (r"\.(ffn\.fn\.net|mlp)\.fc", ".mlp.m.fc"),
    (r"^(norms|head\.norm)\.", "norm."),
    (r"^head\.fc\.", "head."),
)


def _register(config: dict[str, Any], width: int, *depth: int, **facts: Any) -> None:
    dims = tuple(width * 2**i for i in range(4))
    register_model(
        ModelSpec(
            family="davit",
            build=DaViT,
            config=DaViTConfig(embed_dim=dims, depth=depth, **config),
            renames=_RENAMES,
            **facts,
        )
    )


def _paper(size: str, params: int, macs: int, top1: float | None, *dims: int) -> None:
    """A variant of the paper; of the largest no weights were published."""
    name, preprocess = f"davit_{size}", Preprocess(crop_pct=0.95)
    weights = (timm_weights(name, "msft_in1k", "apache-2.0", top1),) if top1 else ()
    facts: dict[str, Any] = {"name": name, "preprocess": preprocess, "checkpoints": weights}
    _register({}, *dims, **facts, params=params, macs=macs)


_paper("tiny", 28_360_000, 4_540_000_000, 82.696, 96, 1, 1, 3, 1)
_paper("small", 49_750_000, 8_800_000_000, 84.252, 96, 1, 1, 9, 1)
_paper("base", 87_950_000, 15_510_000_000, 84.642, 128, 1, 1, 9, 1)
_paper("large", 196_810_000, 34_600_000_000, None, 192, 1, 1, 9, 1)
_paper("huge", 348_920_000, 61_230_000_000, None, 256, 1, 1, 9, 1)
_paper("giant", 1_406_470_000, 192_920_000_000, None, 384, 1, 1, 12, 3)

_FLORENCE = {"num_classes": 0, "window": 12, "kernel": 3, "queries": True}
_WEIGHTS: dict[str, Any] = {
    "file": "pytorch_model.bin",
    "labels": "",
    "note": "the image tower of a language model's file, large to download; timm takes its "
    "licence for apache-2.0. Images are cropped as timm has it: Florence-2 squashes them",
}


def _florence(size: str, repo: str, params: int, macs: int, width: int) -> None:
    """The image tower of a Florence-2, in whose file no norm is behind the pool."""
    weights = timm_weights("", "msft_florence2", "mit", repo=f"microsoft/{repo}", **_WEIGHTS)
    _register(
        _FLORENCE,
        *(width, 1, 1, 9, 1),
        name=f"davit_{size}_fl",
        preprocess=Preprocess(size=768, crop_pct=0.95),
        checkpoints=(weights,),
        key_prefix=r"vision_tower\.",
        adapt=lambda shapes: {} if "norm.weight" in shapes else {"affine": False},
        params=params,
        macs=macs,
    )


_florence("base", "Florence-2-base", 90_370_000, 190_320_000_000, 128)
_florence("huge", "Florence-2-large", 360_640_000, 744_840_000_000, 256)
