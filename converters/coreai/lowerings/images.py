"""Images in another size, and pixels moved into channels and back: (B, C, H, W) throughout."""

from __future__ import annotations

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ...graph.graph import Node
from ...graph.resizing import MODES, weights
from ..registry import lower
from ..values import dtype_of, reshaped, shape_of, signed, unsigned
from .shape import taken

Ints = tuple[int, ...]
_INTERPOLATED = {"nearest": "nearest_neighbor", "linear": "linear"}


@lower("Resize")
def resize(node: Node, x: Value, size: Ints, mode: str) -> Value:
    """Whole factors are Core AI's own: half-pixel centers are an offset of zero there."""
    before = shape_of(x)[2:]
    factors = [out / n for out, n in zip(size, before, strict=True)]
    if mode in _INTERPOLATED and all(factor.is_integer() for factor in factors):
        scale, offset = np.array([1, 1, *factors], np.float32), np.zeros(4, np.float32)
        return ca.interpolate(x, signed(node.output.shape), scale, offset, _INTERPOLATED[mode])
    if mode == "nearest":
        for axis, n, out in zip((2, 3), before, size, strict=True):
            x = taken(x, MODES[mode](n, out), axis)
        return x
    rows, columns = (weights(n, out, mode) for n, out in zip(before, size, strict=True))
    kind = dtype_of(x)
    x = ca.broadcasting_batch_matmul(rows.astype(kind), x)
    return ca.broadcasting_batch_matmul(x, np.ascontiguousarray(columns.T, kind))


def _moved(x: Value, split: Ints, order: Ints, shape: Ints) -> Value:
    return reshaped(ca.transpose(reshaped(x, split), unsigned(order)), shape)


@lower("DepthToSpace", "PixelShuffle")
def shuffle(node: Node, x: Value, r: int) -> Value:
    """Rows, then columns, so that no value has more than five axes."""
    B, C, H, W = shape_of(x)
    c = C // r**2
    if node.op == "DepthToSpace":
        x = _moved(x, (B, r, r * c, H, W), (0, 2, 3, 1, 4), (B, r * c, H * r, W))
        return _moved(x, (B, r, c, H * r, W), (0, 2, 3, 4, 1), (B, c, H * r, W * r))
    x = _moved(x, (B, c * r, r, H, W), (0, 1, 3, 4, 2), (B, c * r, H, W * r))
    return _moved(x, (B, c, r, H, W * r), (0, 1, 3, 2, 4), (B, c, H * r, W * r))


@lower("SpaceToDepth", "PixelUnshuffle")
def unshuffle(node: Node, x: Value, r: int) -> Value:
    B, C, H, W = shape_of(x)
    h, w = H // r, W // r
    if node.op == "SpaceToDepth":
        x = _moved(x, (B, C, H, w, r), (0, 4, 1, 2, 3), (B, r * C, H, w))
        return _moved(x, (B, r * C, h, r, w), (0, 3, 1, 2, 4), (B, r * r * C, h, w))
    x = _moved(x, (B, C, h, r, W), (0, 1, 3, 2, 4), (B, C * r, h, W))
    return _moved(x, (B, C * r, h, w, r), (0, 1, 4, 2, 3), (B, C * r * r, h, w))
