"""Convolutions, pools, upsampling: everything is (batch, channels, height, width) here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var

from ondevice.errors import UnsupportedOpError

from ...graph.graph import Node
from ..registry import lower

Ints = tuple[int, ...]


def padding(low: Ints, high: Ints) -> dict[str, Any]:
    """MIL's two arguments for it."""
    if not any((*low, *high)):
        return {"pad_type": "valid"}
    pairs = zip(low, high, strict=True)
    return {"pad_type": "custom", "pad": [p for pair in pairs for p in pair]}


@lower("Conv")
def conv(node: Node, x: Var, weight: Var, *rest: Any) -> Var:
    *bias, stride, low, high, dilation, groups = rest
    return mb.conv(
        x=x,
        weight=weight,
        strides=stride,
        dilations=dilation,
        groups=groups,
        **padding(low, high),
        **({"bias": bias[0]} if bias else {}),
    )


@lower("ConvTranspose")
def conv_transpose(node: Node, x: Var, weight: Var, *rest: Any) -> Var:
    *bias, stride, low, high, dilation, groups = rest
    if min(*low, *high) < 0:
        raise UnsupportedOpError(f"output padding of a transposed convolution: {node}")
    return mb.conv_transpose(
        x=x,
        weight=weight,
        strides=stride,
        dilations=dilation,
        groups=groups,
        **padding(low, high),
        **({"bias": bias[0]} if bias else {}),
    )


@lower("Pool")
def pool(
    node: Node, x: Var, kind: str, kernel: Ints, stride: Ints, low: Ints, high: Ints
) -> Var:
    common = {"x": x, "kernel_sizes": kernel, "strides": stride, **padding(low, high)}
    if kind == "max":
        return mb.max_pool(**common)
    mean = mb.avg_pool(**common)  # MLX counts the padding as zeros, and so does MIL's default
    return mean if kind == "mean" else mb.mul(x=mean, y=_like(x, float(kernel[0] * kernel[1])))


@lower("Resize")
def resize(node: Node, x: Var, size: Ints, mode: str) -> Var:
    """Whole factors have ops of their own, which run in more places than the one for sizes."""
    height, width = (out / n for out, n in zip(size, x.shape[2:], strict=True))
    factors = {"scale_factor_height": height, "scale_factor_width": width}
    is_whole = height.is_integer() and width.is_integer()
    if mode == "nearest" and is_whole:
        return mb.upsample_nearest_neighbor(x=x, **factors)
    if is_whole:
        return mb.upsample_bilinear(x=x, **factors, align_corners=mode == "aligned")
    sizes = {"target_size_height": size[0], "target_size_width": size[1]}
    if mode == "nearest":
        return mb.resize_nearest_neighbor(x=x, **sizes)
    sampling = {"linear": "UNALIGN_CORNERS", "aligned": "STRICT_ALIGN_CORNERS"}
    return mb.resize_bilinear(x=x, **sizes, sampling_mode=sampling[mode])


@lower("Resample")
def resample(node: Node, x: Var, grid: Var, padding: str) -> Var:
    return mb.resample(
        x=x,
        coordinates=grid,
        sampling_mode="bilinear",
        padding_mode={"zeros": "constant", "border": "border"}[padding],
        padding_value=_like(x, 0.0),
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=False,
    )


_SHUFFLES: dict[str, Callable[[Var, int], Var]] = {
    "DepthToSpace": lambda x, r: mb.depth_to_space(x=x, block_size=r),
    "PixelShuffle": lambda x, r: mb.pixel_shuffle(x=x, upscale_factor=r),
    "PixelUnshuffle": lambda x, r: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(r)),
    "SpaceToDepth": lambda x, r: mb.space_to_depth(x=x, block_size=r),
}


@lower(*_SHUFFLES)
def shuffle(node: Node, x: Var, factor: int) -> Var:
    return _SHUFFLES[node.op](x, factor)


def _like(x: Var, value: float) -> Any:
    from coremltools.converters.mil.mil import types

    return types.nptype_from_builtin(x.dtype)(value)
