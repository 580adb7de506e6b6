"""Constants in compressed forms: the operations that hold and unpack them."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ..compress.forms import Affine, Palette, Sparse
from ..graph.graph import Array
from . import authoring

_AXIS = np.array(
    0, np.int16
)  # along which vectors of a palette would lie; ours are single numbers


@singledispatch
def emit(form: Any) -> Value:
    """A value that stands for ``form.dense()``."""
    raise TypeError(f"no form: {type(form).__name__}")


def _integers(array: Array, bits: int, signed: bool) -> Value:
    if bits == 8:
        return authoring.literal(array.astype(np.int8 if signed else np.uint8))
    return authoring.packed(array, bits, signed)


@emit.register
def _affine(form: Affine) -> Value:
    signed = form.offset is None
    codes = _integers(form.codes, form.bits, signed)
    return _scaled(codes, form)


def _scaled(codes: Value, form: Affine) -> Value:
    """``scale * (codes - offset)``, a scale and an offset a block.

    An offset of floats need not be whole, as Core AI's is that it takes away before: what it
    adds after is ``-scale * offset``.
    """
    scale, blocks = authoring.literal(form.scale), form.scale.shape
    offset, after = authoring.zeros(blocks, like=codes), authoring.zeros(blocks, like=scale)
    if form.offset is not None and form.offset.dtype.kind == "f":
        shift = -form.scale.astype(np.float32) * form.offset.astype(np.float32)
        after = authoring.literal(shift.astype(form.scale.dtype))
    elif form.offset is not None:
        offset = _integers(form.offset, form.bits, signed=False)
    return ca.blockwise_shift_scale(codes, scale, offset, after)


@emit.register
def _palette(form: Palette) -> Value:
    indices = _integers(form.indices, form.bits, signed=False)
    return ca.lut_to_dense(indices, _table(form), _AXIS)


def _table(form: Palette) -> Value:
    """Entries, then the length of the vectors they are (one)."""
    if form.scale is None:
        return authoring.literal(form.table[..., None])
    as_affine = Affine(form.table[..., None].astype(np.int8), form.scale[..., None], 8)
    return _affine(as_affine)


@emit.register
def _sparse(form: Sparse) -> Value:
    """What is absent becomes a zero before anything is unpacked: of integers with a sign
    that is a zero too; of others, where zero is a number of its own, it is made one after."""
    mask = _integers(form.mask != 0, 1, signed=False)
    kept, here = form.kept, form.mask != 0
    if isinstance(kept, np.ndarray):
        return _dense(authoring.literal(kept[here]), mask)
    if isinstance(kept, Palette):
        indices = _integers(kept.indices[here], kept.bits, signed=False)
        sparse = ca.build_sparse_with_bitmask(indices, mask)
        table = _table(kept)
        return ca.sparse_with_bitmask_to_dense(
            ca.lut_to_sparse_with_bitmask(sparse, table, authoring.literal(_AXIS))
        )
    codes = _integers(kept.codes[here], kept.bits, kept.offset is None)
    dense = _scaled(_dense(codes, mask), kept)
    if kept.offset is None:
        return dense
    return ca.broadcasting_mul(dense, ca.cast(mask, kept.scale.dtype.type))


def _dense(values: Value, mask: Value) -> Value:
    return ca.sparse_with_bitmask_to_dense(ca.build_sparse_with_bitmask(values, mask))
