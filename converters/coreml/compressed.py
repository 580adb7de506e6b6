"""Constants in compressed forms: the MIL operations that hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var, types

from ..compress.forms import Affine, Form, Palette, Sparse
from ..graph.graph import Array

_BLOCKWISE = "iOS18"  # the first target with four bits, blocks, groups and joint forms


def emit(form: Form, name: str, target: str) -> Var:
    """A variable that stands for ``form.dense()``."""
    if isinstance(form, Affine):
        return _affine(form, name) if target >= _BLOCKWISE else _affine_before(form, name)
    if isinstance(form, Palette):
        return _palette(form, name) if target >= _BLOCKWISE else _palette_before(form, name)
    return _sparse(form, name) if target >= _BLOCKWISE else _sparse_before(form, name)


def _typed(array: Array, bits: int, *, signed: bool = False) -> Array:
    """Integers marked as being of ``bits`` bits, which decides how they are packed."""
    kind = types.string_to_builtin(f"{'int' if signed else 'uint'}{bits}")
    return array.astype(types.nptype_from_builtin(kind))


def _integers(form: Affine) -> tuple[Array, Array | None]:
    signed = form.offset is None
    offset = form.offset
    if offset is not None and offset.dtype.kind != "f":
        offset = _typed(offset, form.bits)
    return _typed(form.codes, form.bits, signed=signed), offset


def _optional(**arguments: Any) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}


def _affine(form: Affine, name: str) -> Var:
    data, offset = _integers(form)
    return mb.constexpr_blockwise_shift_scale(
        data=data, scale=form.scale, name=name, **_optional(offset=offset)
    )


def _affine_before(form: Affine, name: str) -> Var:
    """Up to iOS17: eight bits, a scale for the tensor or for each place along one axis."""
    data, offset = _integers(form)
    zero = np.zeros((), data.dtype) if offset is None else offset
    along = [axis for axis, n in enumerate(form.scale.shape) if n > 1]
    return mb.constexpr_affine_dequantize(
        quantized_data=data,
        zero_point=zero.reshape(-1) if zero.size > 1 else zero.reshape(()),
        scale=form.scale.reshape(-1) if along else form.scale.reshape(()),
        axis=np.int32(along[0] if along else 0),
        name=name,
    )


def _table(form: Palette) -> Any:
    """The table as an operand: entries, then the length of the vectors they are (one)."""
    if form.scale is None:
        return form.table[..., None]
    return mb.constexpr_blockwise_shift_scale(
        data=form.table[..., None].astype(np.int8), scale=form.scale[..., None]
    )


def _palette(form: Palette, name: str) -> Var:
    return mb.constexpr_lut_to_dense(
        indices=_typed(form.indices, form.bits), lut=_table(form), name=name
    )


def _palette_before(form: Palette, name: str) -> Var:
    """Up to iOS17: one table, packed indices."""
    return mb.constexpr_lut_to_dense(
        indices=pack(form.indices, form.bits),
        lut=form.table.reshape(-1),
        shape=np.array(form.shape, np.uint32),
        name=name,
    )


def pack(values: Array, bits: int) -> Array:
    """Unsigned integers of ``bits`` bits one after the other, least significant bit first."""
    columns = np.unpackbits(
        values.reshape(-1, 1).astype(np.uint8), axis=1, count=bits, bitorder="little"
    )
    return np.packbits(columns.ravel(), bitorder="little")


def _sparse(form: Sparse, name: str) -> Var:
    mask = _typed(form.mask, 1)
    kept = form.mask != 0
    if isinstance(form.kept, np.ndarray):
        return mb.constexpr_sparse_to_dense(nonzero_data=form.kept[kept], mask=mask, name=name)
    if isinstance(form.kept, Affine):
        data, offset = _integers(form.kept)
        mask, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=mask,
            nonzero_data=data[kept],
            scale=form.kept.scale,
            **_optional(offset=offset),
        )
    else:
        mask, values = mb.constexpr_lut_to_sparse(
            indices_mask=mask,
            indices_nonzero_data=_typed(form.kept.indices, form.kept.bits)[kept],
            lut=_table(form.kept),
        )
    return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask, name=name)


def _sparse_before(form: Sparse, name: str) -> Var:
    """Up to iOS17: floats only."""
    assert isinstance(form.kept, np.ndarray)
    return mb.constexpr_sparse_to_dense(
        nonzero_data=form.kept[form.mask != 0],
        mask=np.packbits(form.mask.ravel() != 0, bitorder="little"),
        shape=np.array(form.shape, np.uint32),
        name=name,
    )
