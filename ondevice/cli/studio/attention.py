"""What the last attention of a package reads, of one photo.

The weights are taken from the package itself while it runs, so any network with attention will
do, and nothing of it has to know of this.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from converters.program import Contents, Program

    Array = np.ndarray[Any, Any]


def attention_map(package: Program, pixels: Any, positions: int | None = None) -> Array | None:
    """How much the positions of the last attention are read: (h, w), the most being 1.

    By the class token where there is one, or else by all positions on average, over all heads.
    None of a package without attention over a square of positions, as one within windows:
    where it is known how many ``positions`` the last map has, as many have to read.
    """
    name = _last_attention(package.stored())
    if name is None:
        return None
    weights = next(value for at, value in package.walk({"image": pixels}) if at == name)
    return read_positions(weights, positions)


def _last_attention(stored: Contents) -> str | None:
    """The last softmax that is over pairs of positions: its values go into a product."""
    products = {name for op in stored.operations if op.type == "matmul" for name in op.reads()}
    found = [
        op.outputs[0]
        for op in stored.operations
        if op.type == "softmax" and op.outputs[0] in products
    ]
    return found[-1] if found else None


def read_positions(weights: Any, positions: int | None = None) -> Array | None:
    """(…, queries, keys) weights, or (…, keys, queries), as an (h, w) map of the keys."""
    import numpy as np

    weights = np.asarray(weights, np.float32)
    if weights.ndim < 3 or (weights.ndim == 4 and len(weights) != 1):
        return None
    weights = weights.reshape(-1, *weights.shape[-2:]).mean(axis=0)
    if not np.allclose(weights.sum(axis=-1), 1, atol=1e-2):
        weights = weights.T
    queries, keys = weights.shape
    if positions is not None and queries not in (positions, positions + 1):
        return None
    side = math.isqrt(keys)
    if side**2 == keys:
        read = weights.mean(axis=0)
    elif math.isqrt(keys - 1) ** 2 == keys - 1:  # the first is the class token
        read, side = weights[0, 1:], math.isqrt(keys - 1)
    else:
        return None
    return read.reshape(side, side) / max(float(read.max()), 1e-12)
