"""DINOv2: vision transformers that learned without labels, for images of any size.

Papers: https://arxiv.org/abs/2304.07193, https://arxiv.org/abs/2309.16588 (registers)
Code: https://github.com/facebookresearch/dinov2 (Apache-2.0); names follow
timm/models/vision_transformer.py
"""

from __future__ import annotations

from ..config import Preprocess
from ..nn.vision_transformer import RENAMES, VisionTransformer, VisionTransformerConfig
from ..registry import ModelSpec, register_model, timm_weights


def _register(size: str, dim: int, depth: int, heads: int, params: int) -> None:
    """With and without registers."""
    for name, registers in (
        (f"vit_{size}_patch14_dinov2", 0),
        (f"vit_{size}_patch14_reg4_dinov2", 4),
    ):
        register_model(
            ModelSpec(
                name=name,
                family="dinov2",
                build=VisionTransformer,
                config=VisionTransformerConfig(
                    patch=14,
                    img_size=518,
                    embed_dim=dim,
                    depth=depth,
                    heads=heads,
                    registers=registers,
                    layer_scale=1e-5,
                ),
                preprocess=Preprocess(size=518, crop_pct=1),
                checkpoints=(timm_weights(name, "lvd142m", "apache-2.0", labels=""),),
                renames=RENAMES,
                params=params,
            )
        )


_register("small", 384, 12, 6, 22_060_000)
_register("base", 768, 12, 12, 86_580_000)
_register("large", 1024, 24, 16, 304_370_000)
