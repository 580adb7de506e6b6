"""float32 values as float16 storage would give them back."""

from __future__ import annotations

import numpy as np

from .registry import Array, blockwise

_EXPONENT = np.int32(0x7F800000)
_MIN_EXPONENT = np.int32((127 - 14) << 23)  # below 2^-14 the spacing stays 2^-24
_TO_MAGIC = np.int32((13 << 23) | 0x400000)  # 2^e -> 1.5 * 2^(e + 13)
_OVERFLOW = np.float32(65520)  # half way between the largest float16 and 2^16


def round_to_float16(x: Array) -> Array:
    """Nearest float16, ties to even, overflow to infinity: as ``x.astype(float16)``, fast.

    Adding and taking away 1.5 * 2^(e + 13), where 2^e is the value's power of two, makes
    the processor's own float32 rounding drop 13 bits: ten times faster than NumPy's cast.
    """
    x = np.asarray(x, np.float32)
    if x.ndim == 0 or not x.size or not (x.max() < _OVERFLOW and x.min() > -_OVERFLOW):
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    return blockwise(_round, x)


def _round(x: Array) -> Array:
    magic = np.ascontiguousarray(x).view(np.int32) & _EXPONENT
    np.maximum(magic, _MIN_EXPONENT, out=magic)
    magic += _TO_MAGIC
    shift = magic.view(np.float32)
    rounded: Array = x + shift
    rounded -= shift
    return rounded
