"""DaViT: attention within windows in turn with attention between channels.

Papers: https://arxiv.org/abs/2204.03645, https://arxiv.org/abs/2311.06242 (Florence-2)
Code: https://github.com/dingmyu/davit (MIT); names follow timm/models/davit.py
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import Preprocess, PyramidConfig
from ..cpu import kernels
from ..nn.conditional_positions import ConditionalPositions
from ..nn.image_model import DownStage, ImageModel, in_turn
from ..nn.layers import Conv2d, scale_output
from ..nn.patch_embed import PatchEmbed
from ..nn.residual import ScaledResidual
from ..nn.transformer import Mlp
from ..nn.windows import WindowAttention, pad_to_multiple
from ..registry import Checkpoint, ModelSpec, Shapes, register_model, timm_weights

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


class ChannelAttention(nn.Module):
    """Attention of channels to those of their head, by how alike they are in all positions.

    The paper's has keys attend to values, and mixes queries; with ``queries`` as usual.
    """

    last = "proj"

    def __init__(self, dim: int, queries: bool) -> None:
        super().__init__()
        self.queries = queries
        self.scale = 1.0 if queries else HEAD_DIM**-0.5
        self.qkv: nn.Module = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        B, H, W, C = x.shape
        heads = self.qkv(x).reshape(B, H * W, 3 * C // HEAD_DIM, HEAD_DIM).swapaxes(1, 2)
        q, k, v = mx.split(heads, 3, axis=1)
        a, b, c = (q, k, v) if self.queries else (k, v, q)
        scale = (H * W) ** -0.5 if self.queries else self.scale
        scores = kernels.sum_of_products(a if scale == 1 else a * scale, b)
        y = kernels.softmax(scores, precise=True) @ c.swapaxes(2, 3)
        return self.proj(y.transpose(0, 3, 1, 2).reshape(x.shape))

    def fuse(self) -> ChannelAttention:
        """The same with a scale that is not the image's in qkv."""
        fused, dim = copy.copy(self), self.qkv.weight.shape[1]
        is_key = mx.arange(3 * dim) // dim == 1
        scale = mx.where(is_key, self.scale, 1.0).astype(self.qkv.weight.dtype)
        fused.qkv, fused.scale = scale_output(self.qkv, scale), 1.0
        return fused


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


class DualBlock(nn.Module):
    def __init__(self, c: DaViTConfig, dim: int) -> None:
        super().__init__()
        self.spatial = Block(WindowAttention(dim, dim // HEAD_DIM, c.window), dim)
        self.channel = Block(ChannelAttention(dim, c.queries), dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return self.channel(self.spatial(x))


class Downsample(nn.Module):
    def __init__(self, in_dim: int, dim: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.conv = Conv2d(in_dim, dim, kernel, 2, (kernel - 1) // 2)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / 2, W / 2, C), halves rounded up."""
        return self.conv(pad_to_multiple(self.norm(x), 2))


class Stage(DownStage):
    def __init__(self, c: DaViTConfig, i: int, in_dim: int, dim: int) -> None:
        super().__init__()
        self.downsample = Downsample(in_dim, dim, c.kernel) if i else nn.Identity()
        self.blocks = [DualBlock(c, dim) for _ in range(c.depth[i])]


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


_RENAMES = (
    # the authors' and Florence-2's names become timm's ...
    (r"^(patch_embeds|convs)\.0\.proj\.", "stem.conv."),
    (r"^(patch_embeds|convs)\.0\.norm\.", "stem.norm."),
    (r"^(patch_embeds|convs)\.(\d)\.proj\.", r"stages.\2.downsample.conv."),
    (r"^(patch_embeds|convs)\.(\d)\.norm\.", r"stages.\2.downsample.norm."),
    (r"^(main_)?blocks\.(\d)\.", r"stages.\2.blocks."),
    (r"\.(cpe\.0\.proj|conv1\.fn\.dw)\.", ".cpe1.proj."),
    (r"\.(cpe\.1\.proj|conv2\.fn\.dw)\.", ".cpe2.proj."),
    (r"\.(window|channel)_attn\.norm\.", ".norm1."),
    (r"\.(window|channel)_attn\.fn\.", ".attn."),
    (r"\.ffn\.norm\.", ".norm2."),
    (r"\.ffn\.fn\.net\.", ".mlp."),
    (r"^norms\.", "head.norm."),
    # ... and those ours
    (r"^stem\.conv\.", "stem.proj."),
    (r"(blocks\.\d+)\.(0|spatial_block)\.", r"\1.spatial."),
    (r"(blocks\.\d+)\.(1|channel_block)\.", r"\1.channel."),
    (r"\.norm1\.", ".mixer.norm."),
    (r"\.norm2\.", ".mlp.norm."),
    (r"\.attn\.", ".mixer.m."),
    (r"\.mlp\.fc", ".mlp.m.fc"),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
)


def _config(width: int, *depth: int, **more: Any) -> DaViTConfig:
    return DaViTConfig(embed_dim=tuple(width * 2**i for i in range(4)), depth=depth, **more)


def _register(name: str, params: int, macs: int, config: DaViTConfig, **more: Any) -> None:
    facts = {"preprocess": Preprocess(crop_pct=0.95)} | more
    register_model(
        ModelSpec(
            name=name,
            family="davit",
            build=DaViT,
            config=config,
            renames=_RENAMES,
            params=params,
            macs=macs,
            **facts,
        )
    )


def _paper(size: str, top1: float | None, params: int, macs: int, config: DaViTConfig) -> None:
    """A variant of the paper; of the largest no weights were published."""
    name = f"davit_{size}"
    weights = (timm_weights(name, "msft_in1k", "apache-2.0", top1),) if top1 else ()
    _register(name, params, macs, config, checkpoints=weights)


def _without_affine(shapes: Shapes) -> dict[str, Any]:
    """Florence-2's files have no norm behind the pool, and timm's is then a plain one."""
    return {} if "norm.weight" in shapes else {"affine": False}


def _florence(size: str, repo: str, params: int, macs: int, width: int) -> None:
    """The image tower of a Florence-2."""
    florence = {"num_classes": 0, "window": 12, "kernel": 3, "queries": True}
    _register(
        f"davit_{size}_fl",
        params,
        macs,
        _config(width, 1, 1, 9, 1, **florence),
        preprocess=Preprocess(size=768, crop_pct=0.95),
        checkpoints=(
            Checkpoint(
                tag="msft_florence2",
                repo=f"microsoft/{repo}",
                file="pytorch_model.bin",
                license="mit",
                note="the image tower of a language model's file, large to download, whose "
                "licence timm says is apache-2.0. Preprocessing as timm has it (a centre "
                "crop); Florence-2 squashes images to 768 x 768",
            ),
        ),
        key_prefix=r"vision_tower\.",
        adapt=_without_affine,
    )


_paper("tiny", 82.696, 28_360_000, 4_540_000_000, _config(96, 1, 1, 3, 1))
_paper("small", 84.252, 49_750_000, 8_800_000_000, _config(96, 1, 1, 9, 1))
_paper("base", 84.642, 87_950_000, 15_510_000_000, _config(128, 1, 1, 9, 1))
_paper("large", None, 196_810_000, 34_600_000_000, _config(192, 1, 1, 9, 1))
_paper("huge", None, 348_920_000, 61_230_000_000, _config(256, 1, 1, 9, 1))
_paper("giant", None, 1_406_470_000, 192_920_000_000, _config(384, 1, 1, 12, 3))
_florence("base", "Florence-2-base", 90_370_000, 190_320_000_000, 128)
_florence("huge", "Florence-2-large", 360_640_000, 744_840_000_000, 256)
