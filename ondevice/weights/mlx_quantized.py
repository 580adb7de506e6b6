"""Weights that MLX quantized, as they come in files: unpacked for layers that are not.

``X.weight`` holds the codes in words of 32 bits, ``X.scales`` (and ``X.biases``) what they
stand for, a group at a time along the layer's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn

from ..errors import WeightsError, printable

PARTS = ("weight", "scales", "biases")

# The forms that MLX has, by bits and group: with scales and biases, with eight-bit scales.
_AFFINE: dict[tuple[float, float], str] = {
    (bits, group): "affine" for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)
}
_FLOAT: dict[tuple[float, float], str] = {
    (4, 16): "nvfp4",
    (4, 32): "mxfp4",
    (8, 32): "mxfp8",
}


def unpack(
    weights: Mapping[str, mx.array], layers: Mapping[str, nn.Module]
) -> dict[str, mx.array]:
    """``weights`` with the quantized matrices of plain ``layers`` in float32.

    A layer's width tells its bits and group, so each may have its own; what a config says of
    them can add nothing. Raises WeightsError that lists all whose parts do not fit together.
    """
    found, problems = dict(weights), []
    for path in [k.removesuffix(".scales") for k in weights if k.endswith(".scales")]:
        if path not in layers or "weight" not in layers[path] or "scales" in layers[path]:
            continue  # no plain layer's
        keys = {part: f"{path}.{part}" for part in PARTS}
        parts = {part: found.pop(key) for part, key in keys.items() if key in found}
        width = layers[path].weight.shape[-1]
        if mode := _mode(width, **parts):
            found[keys["weight"]] = _dequantized(width, mode, **parts)
        else:
            said = (f"{part} {array.shape} of {array.dtype}" for part, array in parts.items())
            problems.append(f"{printable(path)} has {', '.join(said)} for {width} inputs")
    if problems:
        raise WeightsError(
            f"quantized weights do not fit together: {'; '.join(problems)}; convert them again"
        )
    return found


def _mode(
    width: int,
    scales: mx.array,
    weight: mx.array | None = None,
    biases: mx.array | None = None,
) -> str:
    """What MLX calls the form of a layer's parts; empty if it has none like this."""
    forms = _FLOAT if scales.dtype == mx.uint8 else _AFFINE
    if (
        weight is None
        or weight.dtype != mx.uint32
        or weight.ndim < 2
        or weight.shape[:-1] != scales.shape[:-1]
        or not scales.size
        or (biases is None) != (forms is _FLOAT)
        or (biases is not None and biases.shape != scales.shape)
    ):
        return ""
    return forms.get((32 * weight.shape[-1] / width, width / scales.shape[-1]), "")


def _dequantized(
    width: int, mode: str, weight: mx.array, scales: mx.array, biases: mx.array | None = None
) -> mx.array:
    """(..., width) in float32; affine MLX would compute it in the type of the scales."""
    if biases is not None:
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    return mx.dequantize(
        weight,
        scales,
        biases,
        group_size=width // scales.shape[-1],
        bits=32 * weight.shape[-1] // width,
        mode=mode,
        dtype=mx.float32,
    )
