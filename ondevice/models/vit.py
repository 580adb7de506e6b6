"""MobileCLIP-B's image encoder: a ViT-B/16 whose patches are cut by convolutions.

Papers: https://arxiv.org/abs/2010.11929 (ViT), https://arxiv.org/abs/2106.14881 (early
convolutions), https://arxiv.org/abs/2311.17049 (MobileCLIP)
Code: https://github.com/apple/ml-mobileclip; names follow timm's ``vit_base_mci_224``, but
for ``patch_embed.backbone``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..cpu import kernels
from ..nn.image_model import ImageModel
from ..nn.layers import (
    ConvNorm,
)
from ..nn.transformer import Block
from ..registry import Checkpoint, ModelSpec, Shapes, register_model

PATCH = 16


@dataclass(frozen=True, kw_only=True)
class ViTConfig(ModelConfig):
    embed_dim: int = 768
    depth: int = 12
    heads: int = 12
    img_size: int = 224
    head_bias: bool = True

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return (FeatureInfo(0, self.embed_dim, PATCH),)

    @property
    def only_size(self) -> int:
        return self.img_size


class ViT(ImageModel):
    """The first token, which belongs to no patch, collects what is pooled."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        c, dim, stem = config, config.embed_dim, config.embed_dim // 4
        self.config = config
        self.patch_embed: list[nn.Module] = [
            ConvNorm(3, stem, 4, 4, padding=0),
            ConvNorm(stem, stem, 2, 2, padding=0),
            nn.Conv2d(stem, dim, 2, 2),
        ]
        self.cls_token = mx.zeros((1, 1, dim))
        self.pos_embed = mx.zeros((1, (c.img_size // PATCH) ** 2, dim))  # not the first token's
        self.blocks = [Block(dim, c.heads, eps=1e-6) for _ in range(c.depth)]
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        if c.num_classes:
            self.head = nn.Linear(dim, c.num_classes, bias=c.head_bias)

    def tokens(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, 1 + patches, C)."""
        *convs, last = self.patch_embed
        for conv in convs:
            x = kernels.gelu(conv(x))
        x = last(x)
        B, _, _, C = x.shape
        x = x.reshape(B, -1, C) + self.pos_embed
        x = mx.concatenate([mx.broadcast_to(self.cls_token, (B, 1, C)), x], axis=1)
        for block in self.blocks:
            x = block(x)
        return x

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to one NHWC map, of the patches."""
        side = self.config.img_size // PATCH
        return [self.tokens(x)[:, 1:].reshape(x.shape[0], side, side, -1)]

    def final(self, x: mx.array) -> mx.array:
        """The (B, H, W, C) map with the norm before the head."""
        return self.norm(x)

    def pooled(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to the first token's (B, C)."""
        self.check_input(x)
        return self.norm(self.tokens(x)[:, 0])


# Apple's names become timm's, timm's become ours.
_RENAMES = (
    (r"^patch_emb\.", "patch_embed."),
    (r"^patch_embed\.backbone\.", "patch_embed."),
    (r"^patch_embed\.(\d)\.block\.norm\.", r"patch_embed.\1.bn."),
    (r"^patch_embed\.(\d)\.block\.conv\.", r"patch_embed.\1.conv."),
    (r"^patch_embed\.2\.conv\.", "patch_embed.2."),
    (r"^pos_embed\.pos_embed\.pos_embed$", "pos_embed"),
    (r"^post_transformer_norm\.", "norm."),
    (r"^transformer\.", "blocks."),
    (r"\.pre_norm_mha\.0\.", ".norm1."),
    (r"\.pre_norm_mha\.1\.qkv_proj\.", ".attn.qkv."),
    (r"\.pre_norm_mha\.1\.out_proj\.", ".attn.proj."),
    (r"\.pre_norm_ffn\.0\.", ".norm2."),
    (r"\.pre_norm_ffn\.1\.", ".mlp.fc1."),
    (r"\.pre_norm_ffn\.4\.", ".mlp.fc2."),
    (r"^classifier\.proj$", "head.weight"),
)


def _adapt(shapes: Shapes) -> dict[str, Any]:
    """Apple's files have a projection without bias."""
    return {"head_bias": "head.bias" in shapes or "head.weight" not in shapes}


def _checkpoint(tag: str, repo: str, zero_shot: float) -> Checkpoint:
    return Checkpoint(
        tag=tag,
        repo=repo,
        license="apple-amlr",
        note=f"zero-shot ImageNet-1k with its text encoder: {zero_shot} %. Preprocessing as in "
        "Apple's code (bilinear, short edge to 224); timm's has bicubic and crop_pct 0.9",
    )


register_model(
    ModelSpec(
        name="vit_base_mci_224",
        family="vit",
        build=ViT,
        config=ViTConfig(num_classes=512),
        preprocess=Preprocess(
            size=224, crop_pct=1, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1)
        ),
        checkpoints=(
            _checkpoint("apple_mclip", "apple/mobileclip_b_timm", 76.8),
            _checkpoint("apple_mclip_lt", "apple/mobileclip_b_lt_timm", 77.2),
            _checkpoint(
                "apple_mclip2_dfndr2b", "timm/vit_base_mci_224.apple_mclip2_dfndr2b", 79.4
            ),
        ),
        fixed_size=True,
        key_prefix=r"((module|model)\.)?(image_encoder\.model|visual\.trunk)\.",
        renames=_RENAMES,
        transposes=r"^classifier\.proj$",
        adapt=_adapt,
        params=86_350_000,
    )
)
