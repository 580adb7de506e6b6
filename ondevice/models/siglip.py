"""SigLIP's and SigLIP 2's image encoders of size B.

Papers: https://arxiv.org/abs/2303.15343, https://arxiv.org/abs/2502.14786
Code: https://github.com/google-research/big_vision (Apache-2.0); names follow
timm/models/vision_transformer.py
"""

from __future__ import annotations

from typing import Literal

from ..config import Preprocess
from ..nn.vision_transformer import RENAMES, VisionTransformer, VisionTransformerConfig
from ..registry import ModelSpec, register_model, timm_weights


def _register(name: str, patch: int, size: int, params: int, macs: int | None = None) -> None:
    """The mean of all positions instead of the query's result where the name has "gap"."""
    pool: Literal["mean", "attention"] = "mean" if "_gap_" in name else "attention"
    tags = ["v2_webli"] if patch == 32 else ["v2_webli", "webli"]
    tags += ["webli_i18n"] if (patch, size) == (16, 256) else []
    register_model(
        ModelSpec(
            name=name,
            family="siglip",
            build=VisionTransformer,
            config=VisionTransformerConfig(
                patch=patch,
                img_size=size,
                pool=pool,
                act="gelu_tanh" if patch == 32 else "gelu",  # as timm has them
            ),
            preprocess=Preprocess(
                size=size, crop_pct=0.9, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
            ),
            checkpoints=tuple(timm_weights(name, t, "apache-2.0", labels="") for t in tags),
            key_prefix=r"((module|model)\.)?visual\.trunk\.",
            renames=RENAMES,
            params=params,
            macs=macs,
        )
    )


_register("vit_base_patch16_siglip_224", 16, 224, 92_880_000, 17_730_000_000)
_register("vit_base_patch16_siglip_256", 16, 256, 92_930_000)
_register("vit_base_patch16_siglip_384", 16, 384, 93_180_000)
_register("vit_base_patch16_siglip_512", 16, 512, 93_520_000)
_register("vit_base_patch32_siglip_256", 32, 256, 94_550_000, 5_750_000_000)
_register("vit_base_patch16_siglip_gap_224", 16, 224, 85_800_000, 17_490_000_000)
_register("vit_base_patch16_siglip_gap_256", 16, 256, 85_840_000)
_register("vit_base_patch16_siglip_gap_384", 16, 384, 86_090_000)
_register("vit_base_patch16_siglip_gap_512", 16, 512, 86_430_000)
_register("vit_base_patch32_siglip_gap_256", 32, 256, 87_470_000, 5_670_000_000)
