"""MobileCLIP's image encoders (mci*) and FastVLM's encoder FastViTHD: FastViT networks.

Papers: https://arxiv.org/abs/2311.17049 and https://arxiv.org/abs/2508.20691 (MobileCLIP),
https://arxiv.org/abs/2412.13303 (FastVLM)
Code: https://github.com/apple/ml-mobileclip, https://github.com/apple/ml-fastvlm
"""

from __future__ import annotations

from dataclasses import replace

from ..config import CLIP_MEAN, CLIP_STD, Preprocess
from ..registry import Checkpoint
from .fastvit import FastViTConfig, register

# MobileCLIP's "classes" are the dimensions of the space it shares with its text encoder.

_APPLE = Preprocess(
    size=256, crop_pct=1, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1)
)
_TIMM = Preprocess(size=256, crop_pct=0.95, mean=(0, 0, 0), std=(1, 1, 1))
_TIMM_CLIP = Preprocess(size=256, crop_pct=0.95, mean=CLIP_MEAN, std=CLIP_STD)


def _mobileclip(size: int, zero_shot: float) -> Checkpoint:
    return Checkpoint(
        tag="apple_mclip",
        repo=f"apple/mobileclip_s{size}_timm",
        license="apple-amlr",
        preprocess=_APPLE,
        note=f"zero-shot ImageNet-1k with its text encoder: {zero_shot} %. Preprocessing as in "
        "Apple's code (bilinear, short edge to 256); timm's has bicubic and crop_pct 0.95",
    )


def _mobileclip2(
    size: int, zero_shot: float, preprocess: Preprocess, apart: str = "bilinear, crop_pct 1"
) -> Checkpoint:
    return Checkpoint(
        tag="apple_mclip2_dfndr2b",
        repo=f"timm/fastvit_mci{size}.apple_mclip2_dfndr2b",
        license="apple-amlr",
        preprocess=preprocess,
        note=f"zero-shot ImageNet-1k with its text encoder: {zero_shot} %. Preprocessing as in "
        f"timm, which published this file; open_clip's differs ({apart})",
    )


_S0 = FastViTConfig(
    num_classes=512,
    embed_dim=(64, 128, 256, 512),
    depth=(2, 6, 10, 2),
    mlp_ratio=3,
    se_downsample=(False, False, True, True),
    downsample_act=True,
)
_S3 = FastViTConfig(
    num_classes=768,
    embed_dim=(96, 192, 384, 768, 1536),
    depth=(2, 12, 24, 4, 2),
    attention=(False, False, False, True, True),
    norm="layer",
    downsample_act=True,
    stem_scale=False,
)

register(
    "fastvit_mci0",
    _mobileclip(0, 67.8),
    _mobileclip2(0, 71.5, replace(_TIMM, crop_pct=1), "bilinear"),
    config=_S0,
    preprocess=_APPLE,
    params=11_360_000,
    macs=2_390_000_000,
)
register(
    "fastvit_mci1",
    _mobileclip(1, 72.6),
    config=replace(_S0, depth=(4, 12, 20, 4)),
    preprocess=_APPLE,
    params=21_460_000,
    macs=4_670_000_000,
)
register(
    "fastvit_mci2",
    _mobileclip(2, 74.4),
    _mobileclip2(2, 77.2, _TIMM),
    config=replace(_S0, embed_dim=(80, 160, 320, 640), depth=(4, 12, 24, 4)),
    preprocess=_APPLE,
    params=35_700_000,
    macs=7_850_000_000,
)
register(
    "fastvit_mci3",
    _mobileclip2(3, 80.7, _TIMM_CLIP),
    config=_S3,
    preprocess=_TIMM_CLIP,
    params=125_070_000,
    macs=14_820_000_000,
)
register(
    "fastvit_mci4",
    _mobileclip2(4, 81.9, _TIMM_CLIP),
    config=replace(_S3, embed_dim=(128, 256, 512, 1024, 2048), depth=(2, 12, 24, 4, 4)),
    preprocess=_TIMM_CLIP,
    params=321_570_000,
    macs=27_780_000_000,
)


def _fastvlm(size: str, file: str = "model.safetensors") -> Checkpoint:
    return Checkpoint(
        tag=f"fastvlm_{size.lower()}",
        repo=f"apple/FastVLM-{size}",
        file=file,
        license="apple-amlr",
        note="the vision tower of a language model's file, large to download. Preprocessing "
        "as in Apple's Python code (padded to a square); its iOS app crops instead",
    )


# FastVLM's encoder: fastvit_mci3 without the projection, 256 tokens from 1024 x 1024 pixels.
register(
    "fastvithd",
    _fastvlm("0.5B"),
    _fastvlm("1.5B"),
    _fastvlm("7B", "model.safetensors.index.json"),
    config=replace(_S3, num_classes=0, tokens=True, inference_mode=True),
    preprocess=Preprocess(
        size=1024, crop_pct=1, crop_mode="pad", mean=(0, 0, 0), std=(1, 1, 1)
    ),
    params=125_100_000,
    macs=None,
)
