"""Depth Anything V2: relative depth of an image, by a DPT head on a DINOv2 backbone.

Papers: https://arxiv.org/abs/2406.09414 (Depth Anything V2), https://arxiv.org/abs/2103.13413
(DPT)
Code: https://github.com/DepthAnything/Depth-Anything-V2; names follow transformers
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..cpu import kernels
from ..nn.dinov2 import RENAMES, Backbone
from ..nn.image_model import check_image
from ..nn.layers import Conv2d
from ..nn.resize import bilinear
from ..registry import Checkpoint, ModelSpec, register_model
from ..signature import Input, Output, Signature

PATCH = 14


@dataclass(frozen=True, kw_only=True)
class DepthAnythingConfig(ModelConfig):
    num_classes: int = 0
    embed_dim: int
    depth: int
    heads: int
    out: tuple[int, ...]  # the blocks whose tokens are read, counted from 1
    neck_dims: tuple[int, ...]
    fusion_dim: int
    head_dim: int = 32
    table: int = 37  # the side of the table of positions, in patches

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, self.embed_dim, PATCH) for i in range(len(self.out)))


class Reassemble(nn.Module):
    """A map of patches in the channels and the size of one step of a pyramid."""

    def __init__(self, dim: int, out_dim: int, factor: float) -> None:
        super().__init__()
        self.projection = Conv2d(dim, out_dim, 1)
        if factor > 1:
            step = int(factor)
            self.resize: nn.Module = nn.ConvTranspose2d(out_dim, out_dim, step, step)
        elif factor < 1:
            self.resize = Conv2d(out_dim, out_dim, 3, int(1 / factor), 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, dim) map to (B, H x factor, W x factor, out), rounded up."""
        x = self.projection(x)
        return self.resize(x) if "resize" in self else x


class PreActivation(nn.Module):
    """Two convolutions, each behind a ReLU, with a residual around them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convolution1 = Conv2d(dim, dim, 3, 1, 1)
        self.convolution2 = Conv2d(dim, dim, 3, 1, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to the same shape."""
        return x + self.convolution2(kernels.relu(self.convolution1(kernels.relu(x))))


class Fusion(nn.Module):
    """What comes from below in the pyramid and the map of this step, in the next one's size."""

    def __init__(self, dim: int, *, first: bool) -> None:
        super().__init__()
        if not first:
            self.residual_layer1 = PreActivation(dim)
        self.residual_layer2 = PreActivation(dim)
        self.projection = Conv2d(dim, dim, 1)

    def __call__(self, x: mx.array, size: tuple[int, int], step: mx.array | None) -> mx.array:
        """Two (B, H, W, C) maps to (B, *size, C)."""
        if step is not None:
            x = x + self.residual_layer1(step)
        x = self.residual_layer2(x)
        # A 1x1 convolution commutes with the resize; before it there are fewer pixels.
        return bilinear(self.projection(x), size, align_corners=True)


class Neck(nn.Module):
    def __init__(self, config: DepthAnythingConfig) -> None:
        super().__init__()
        dim, factors = config.fusion_dim, (4, 2, 1, 0.5)
        pairs = zip(config.neck_dims, factors, strict=True)
        layers = [Reassemble(config.embed_dim, out, factor) for out, factor in pairs]
        self.reassemble_stage = {"layers": layers}
        self.convs = [Conv2d(c, dim, 3, 1, 1, bias=False) for c in config.neck_dims]
        fusions = [Fusion(dim, first=i == 0) for i in range(len(config.neck_dims))]
        self.fusion_stage = {"layers": fusions}

    def __call__(self, maps: list[mx.array]) -> mx.array:
        """Four maps of patches to one (B, 8 H, 8 W, fusion) map."""
        layers = zip(maps, self.reassemble_stage["layers"], self.convs, strict=True)
        steps = [conv(layer(x)) for x, layer, conv in layers][::-1]
        sizes = [(step.shape[1], step.shape[2]) for step in steps[1:]]
        height, width = sizes[-1]
        sizes.append((2 * height, 2 * width))
        x, step = steps[0], None
        fusions = self.fusion_stage["layers"]
        for fusion, size, following in zip(fusions, sizes, [*steps[1:], None], strict=True):
            x = fusion(x, size, step)
            step = following
        return x


class Head(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(dim, dim // 2, 3, 1, 1)
        self.conv2 = Conv2d(dim // 2, hidden, 3, 1, 1)
        self.conv3 = Conv2d(hidden, 1, 1)

    def __call__(self, x: mx.array, size: tuple[int, int]) -> mx.array:
        """(B, h, w, C) map to (B, *size, 1)."""
        x = bilinear(self.conv1(x), size, align_corners=True)
        return kernels.relu(self.conv3(kernels.relu(self.conv2(x))))


class DepthAnything(nn.Module):
    """Larger values are nearer; only their order and ratios mean anything."""

    def __init__(self, config: DepthAnythingConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.backbone = Backbone(c.embed_dim, c.depth, c.heads, c.out, PATCH, c.table)
        self.neck = Neck(c)
        self.depth_head = Head(c.fusion_dim, c.head_dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, H, W, 1) inverse depth, 0 or more.

        Raises ConfigError for a size that is no multiple of 14.
        """
        check_image(x, PATCH)
        return self.depth_head(self.neck(self.backbone(x)), (x.shape[1], x.shape[2]))

    def grey(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to (B, H, W, 1) from 0, the farthest, to 255, the nearest."""
        depth = self(x)
        low = depth.min(axis=(1, 2, 3), keepdims=True)
        high = depth.max(axis=(1, 2, 3), keepdims=True)
        return mx.round((depth - low) * (255 / mx.maximum(high - low, 1e-3)))

    @property
    def signature(self) -> Signature:
        """One image in; inverse depth out, as half-precision or 8-bit image, or as an array."""
        spec = self.info.preprocess
        image = Input("image", "image", (1, spec.size, spec.size, 3), contract=spec)
        text = "Relative inverse depth: larger is nearer"
        outputs = (
            Output("depth", "depth", axes="NHWC", pixels="grey16", text=text),
            Output("depth_array", "depth", axes="NHWC", text=text),
            Output(
                "depth_grey",
                "image",
                method="grey",
                axes="NHWC",
                pixels="grey",
                text="Relative inverse depth, from 0 (farthest) to 255 (nearest) in each image",
            ),
        )
        return Signature((image,), outputs, ("depth",), self.info.name)


_ASPECT = (
    "transformers keeps the photo's aspect ratio; here both edges become one size, which "
    "flattens depth in long photos a little"
)


def _register(size: str, license: str, config: DepthAnythingConfig, params: int) -> None:
    name = f"depth_anything_v2_{size}"
    register_model(
        ModelSpec(
            name=name,
            family="depth_anything",
            build=DepthAnything,
            config=config,
            preprocess=Preprocess(size=518, crop_pct=1, crop_mode="squash"),
            checkpoints=(
                Checkpoint(
                    tag="hf",
                    repo=f"depth-anything/Depth-Anything-V2-{size.capitalize()}-hf",
                    license=license,
                    note=_ASPECT,
                ),
            ),
            renames=(*RENAMES, (r"^head\.", "depth_head.")),
            # The first step of the pyramid has none below it.
            unused=r"mask_token$|fusion_stage\.layers\.0\.residual_layer1\.",
            params=params,
        )
    )


_register(
    "small",
    "apache-2.0",
    DepthAnythingConfig(
        embed_dim=384,
        depth=12,
        heads=6,
        out=(3, 6, 9, 12),
        neck_dims=(48, 96, 192, 384),
        fusion_dim=64,
    ),
    params=24_710_849,
)
_register(
    "base",
    "cc-by-nc-4.0",
    DepthAnythingConfig(
        embed_dim=768,
        depth=12,
        heads=12,
        out=(3, 6, 9, 12),
        neck_dims=(96, 192, 384, 768),
        fusion_dim=128,
    ),
    params=97_174_849,
)
