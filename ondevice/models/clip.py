"""MobileCLIP, MobileCLIP2, SigLIP and SigLIP 2: image and text encoders of one space.

``create_model("mobileclip_s0")`` is the image encoder, ``ondevice.load_clip`` both.

Papers: https://arxiv.org/abs/2311.17049, https://arxiv.org/abs/2508.20691 (MobileCLIP),
https://arxiv.org/abs/2303.15343, https://arxiv.org/abs/2502.14786 (SigLIP)
Code: https://github.com/apple/ml-mobileclip, https://github.com/mlfoundations/open_clip
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import mlx.core as mx

from ..config import CLIP_MEAN, CLIP_STD, ModelConfig, Preprocess
from ..nn.image_model import ImageModel
from ..nn.layers import unit
from ..registry import Checkpoint, ModelSpec, Shapes, model_spec, register_model
from . import (  # the networks, registered first
    mobileclip as mobileclip,
    siglip as siglip,
    vit as vit,
)
from .clip_text import KEY_PREFIX, RENAMES, TRANSPOSES, TextConfig, TextTower


class ImageTower(ImageModel):
    """A network whose scores, or what it pools where it has none, are coordinates."""

    def __init__(self, trunk: ImageModel) -> None:
        super().__init__()
        self.trunk = trunk
        self.config = trunk.config

    @property
    def dim(self) -> int:
        """Coordinates of an image."""
        config: Any = self.config
        return config.num_classes or config.embed_dim

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the trunk's NHWC maps."""
        return self.trunk.maps(x)

    def final(self, x: mx.array) -> mx.array:
        """The trunk's (B, H, W, C) last map, to be pooled."""
        return self.trunk.final(x)

    def pooled(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to its (B, D) vector in the space shared with texts."""
        return unit(self.trunk(x))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to its (B, D) unit vector, as ``pooled``."""
        return self.pooled(x)


def _image_spec(name: str, trunk: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    def build(config: ModelConfig) -> ImageTower:
        return ImageTower(cast("ImageModel", trunk.build(config)))

    def adapt(shapes: Shapes) -> dict[str, Any]:
        return trunk.adapt({k.removeprefix("trunk."): v for k, v in shapes.items()})

    return replace(
        trunk,
        name=name,
        build=build,
        preprocess=checkpoint.preprocess or trunk.preprocess,
        checkpoints=(checkpoint,),
        renames=(*trunk.renames, (r"^(?!trunk\.)", "trunk.")),
        adapt=adapt,
        text=f"{name}_text",
    )


def _text_spec(config: TextConfig, image: ModelSpec, params: int) -> ModelSpec:
    return ModelSpec(
        name=image.text,
        family="clip_text",
        build=TextTower,
        config=config,
        preprocess=image.preprocess,
        checkpoints=tuple(replace(c, top1=None, note="") for c in image.checkpoints),
        fixed_size=True,
        key_prefix=KEY_PREFIX,
        renames=RENAMES,
        transposes=TRANSPOSES,
        params=params,
        part_of=image.name,
    )


def _register(
    name: str,
    trunk: str,
    text: tuple[TextConfig, float],
    tag: str,
    repo: str,
    zero_shot: float,
    preprocess: Preprocess,
    file: str = "open_clip_model.safetensors",
) -> None:
    config, millions = text
    checkpoint = Checkpoint(
        tag=tag,
        repo=repo,
        file=file,
        license="apple-amlr",
        top1=zero_shot,
        preprocess=preprocess,
        note=f"the image encoder of a CLIP, whose text encoder has {millions} M parameters; "
        "top-1 is zero-shot. Preprocessing as in Apple's code and open_clip (bilinear, short "
        f"edge to {preprocess.size}); timm's for the image encoder alone has bicubic",
    )
    image = _image_spec(name, model_spec(trunk), checkpoint)
    register_model(image)
    register_model(_text_spec(config, image, round(millions * 1e6)))


_CAUSAL = TextConfig(causal=True), 63.4
_FULL = TextConfig(), 63.4
_WIDE = TextConfig(embed_dim=768, width=768, heads=12), 123.6
_MCT = TextConfig(depth=4, conv_blocks=True), 42.4

_P256 = Preprocess(
    size=256, crop_pct=1, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1)
)
_P224 = replace(_P256, size=224)
_CLIP = replace(_P256, mean=CLIP_MEAN, std=CLIP_STD)

_DR, _DR_LT, _DFN = "datacompdr", "datacompdr_lt", "dfndr2b"  # open_clip's tags
_APPLE, _TIMM = "apple/MobileCLIP-{}-OpenCLIP".format, "timm/MobileCLIP2-{}-OpenCLIP".format

# S0's text encoder is of a kind that open_clip has not: it is published as Apple's file only.
_register(
    "mobileclip_s0",
    "fastvit_mci0",
    _MCT,
    _DR,
    "apple/MobileCLIP-S0",
    67.8,
    _P256,
    file="mobileclip_s0.pt",
)
_register("mobileclip_s1", "fastvit_mci1", _FULL, _DR, _APPLE("S1"), 72.6, _P256)
_register("mobileclip_s2", "fastvit_mci2", _FULL, _DR, _APPLE("S2"), 74.4, _P256)
_register("mobileclip_b", "vit_base_mci_224", _CAUSAL, _DR, _APPLE("B"), 76.8, _P224)
_register("mobileclip_blt", "vit_base_mci_224", _CAUSAL, _DR_LT, _APPLE("B-LT"), 77.2, _P224)
_register("mobileclip2_s0", "fastvit_mci0", _FULL, _DFN, _TIMM("S0"), 71.5, _P256)
_register("mobileclip2_s2", "fastvit_mci2", _FULL, _DFN, _TIMM("S2"), 77.2, _P256)
_register("mobileclip2_b", "vit_base_mci_224", _CAUSAL, _DFN, _TIMM("B"), 79.4, _P224)
_register("mobileclip2_s3", "fastvit_mci3", _WIDE, _DFN, _TIMM("S3"), 80.7, _CLIP)
_register("mobileclip2_s4", "fastvit_mci4", _WIDE, _DFN, _TIMM("S4"), 81.9, _CLIP)


_SIGLIP = TextConfig(
    embed_dim=768,
    width=768,
    heads=12,
    context=64,
    vocab=32_000,
    tokens="t5",
    pool="last",
    eps=1e-6,
    projection_bias=True,
    sigmoid=True,
)
_I18N = replace(_SIGLIP, vocab=250_000)
_SIGLIP2 = replace(_SIGLIP, vocab=256_000, tokens="gemma", act="gelu_tanh")


def _register_siglip(
    name: str,
    repo: str,
    config: TextConfig,
    params: int,
    size: int,
    zero_shot: float | None = None,
    patch: int = 16,
) -> None:
    half = (0.5, 0.5, 0.5)
    checkpoint = Checkpoint(
        tag="webli",
        repo=f"timm/ViT-B-{repo}",
        file="open_clip_model.safetensors",
        license="apache-2.0",
        top1=zero_shot,
        preprocess=Preprocess(size=size, crop_pct=1, crop_mode="squash", mean=half, std=half),
        note="the image encoder of a SigLIP, whose text encoder has "
        f"{params / 1e6:.1f} M parameters"
        f"{'; top-1 is zero-shot, as open_clip measured it' if zero_shot else ''}. "
        f"Preprocessing as in open_clip (both edges to {size}); timm's for the image encoder "
        "alone crops",
    )
    trunk = model_spec(f"vit_base_patch{patch}_siglip_{size}")
    image = _image_spec(name, trunk, checkpoint)
    register_model(image)
    register_model(_text_spec(config, image, params))


_S, _S2 = "siglip_base_patch16_{}".format, "siglip2_base_patch16_{}".format
_register_siglip(_S(224), "16-SigLIP", _SIGLIP, 110_270_000, 224, 76.04)
_register_siglip(_S(256), "16-SigLIP-256", _SIGLIP, 110_270_000, 256, 76.53)
_register_siglip(_S(384), "16-SigLIP-384", _SIGLIP, 110_270_000, 384, 78.49)
_register_siglip(_S(512), "16-SigLIP-512", _SIGLIP, 110_270_000, 512, 79.14)
_register_siglip(_S("256_multilingual"), "16-SigLIP-i18n-256", _I18N, 277_700_000, 256, 75.13)
# No figure of SigLIP 2 is listed by open_clip; the parameters of its text encoder are counted.
_register_siglip(
    "siglip2_base_patch32_256", "32-SigLIP2-256", _SIGLIP2, 282_300_000, 256, patch=32
)
_register_siglip(_S2(224), "16-SigLIP2", _SIGLIP2, 282_300_000, 224)
_register_siglip(_S2(256), "16-SigLIP2-256", _SIGLIP2, 282_300_000, 256)
_register_siglip(_S2(384), "16-SigLIP2-384", _SIGLIP2, 282_300_000, 384)
_register_siglip(_S2(512), "16-SigLIP2-512", _SIGLIP2, 282_300_000, 512)
