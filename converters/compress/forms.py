"""The forms in which Core ML can hold a constant in fewer bits, and what each stands for.

``dense()`` is bit for bit what Core ML unpacks: a package and its own unpacked twin compute
the same. Arrays of a form are channels-first, as they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..graph.graph import Array, Shape


@dataclass(frozen=True)
class Affine:
    """``scale * (codes - offset)``: integers of ``bits`` bits with a scale a block.

    ``scale`` and ``offset`` have the rank of ``codes``; along each axis there are as many as
    blocks. ``offset`` may be missing: the integers are then signed, zero is zero. One of
    floats, in the type of ``scale``, need not be whole.
    """

    codes: Array
    scale: Array
    bits: int
    offset: Array | None = None

    @property
    def shape(self) -> Shape:
        """Of the weight."""
        return self.codes.shape

    @property
    def stored_bits(self) -> int:
        """Of all its parts together."""
        offsets = 0 if self.offset is None else self.offset.size * self._offset_bits
        return self.codes.size * self.bits + _bits(self.scale) + offsets

    @property
    def _offset_bits(self) -> int:
        is_float = self.offset is not None and self.offset.dtype.kind == "f"
        return 8 * self.scale.itemsize if is_float else self.bits

    @property
    def label(self) -> str:
        """The format in a few words, such as "int8 per channel"."""
        blocks = [n // s for n, s in zip(self.shape, self.scale.shape, strict=True)]
        signed = "int" if self.offset is None else "uint"
        return f"{signed}{self.bits} {_granularity(blocks, self.shape)}"

    def dense(self) -> Array:
        """The values that Core ML unpacks, in the type of the scale, table or kept values."""
        dtype = self.scale.dtype
        values = self.codes.astype(np.float32)
        if self.offset is not None:  # each step is rounded; whole numbers are exact
            values = (values - spread(self.offset, self.shape)).astype(dtype)
        scaled = values.astype(np.float32) * spread(self.scale, self.shape).astype(np.float32)
        return scaled.astype(dtype)


@dataclass(frozen=True)
class Palette:
    """``table[..., indices]``: each value is one of 2**bits, chosen by its group's table.

    ``table`` is (groups along each axis…, 2**bits). With ``scale`` (one, or one a group) its
    entries are 8-bit integers, which newer Neural Engines multiply as such.
    """

    indices: Array
    table: Array
    bits: int
    scale: Array | None = None

    @property
    def shape(self) -> Shape:
        """Of the weight."""
        return self.indices.shape

    @property
    def stored_bits(self) -> int:
        """Of all its parts together."""
        scales = 0 if self.scale is None else _bits(self.scale)
        return self.indices.size * self.bits + _bits(self.table) + scales

    @property
    def label(self) -> str:
        """The format in a few words, such as "int8 per channel"."""
        blocks = [n // s for n, s in zip(self.shape, self.table.shape[:-1], strict=True)]
        entries = "" if self.scale is None else " of int8"
        return f"palette{self.bits}{entries} {_granularity(blocks, self.shape)}"

    def values(self) -> Array:
        """The table's entries as floats."""
        if self.scale is None:
            return self.table
        scaled = self.table.astype(np.float32) * self.scale.astype(np.float32)
        return scaled.astype(self.scale.dtype)

    def dense(self) -> Array:
        """The values that Core ML unpacks, in the type of the scale, table or kept values."""
        tables = self.values()
        whole = spread(tables, (*self.shape, tables.shape[-1]))
        return np.take_along_axis(whole, self.indices[..., None].astype(np.intp), -1)[..., 0]


@dataclass(frozen=True)
class Sparse:
    """Zero where ``mask`` is zero; elsewhere the values of ``kept``, an array or a form."""

    mask: Array
    kept: Array | Affine | Palette

    @property
    def shape(self) -> Shape:
        """Of the weight."""
        return self.mask.shape

    @property
    def stored_bits(self) -> int:
        """Of all its parts together."""
        if isinstance(self.kept, np.ndarray):
            return self.mask.size + int(self.mask.sum()) * 8 * self.kept.itemsize
        absent = int(self.mask.size - self.mask.sum())
        return self.mask.size + self.kept.stored_bits - absent * self.kept.bits

    @property
    def label(self) -> str:
        """The format in a few words, such as "int8 per channel"."""
        share = 1 - self.mask.mean()
        inner = "" if isinstance(self.kept, np.ndarray) else f" {self.kept.label}"
        return f"sparse {share:.0%}{inner}"

    def dense(self) -> Array:
        """The values that Core ML unpacks, in the type of the scale, table or kept values."""
        values = self.kept if isinstance(self.kept, np.ndarray) else self.kept.dense()
        return np.where(self.mask != 0, values, 0).astype(values.dtype)


Form: TypeAlias = Affine | Palette | Sparse


def spread(blocks: Array, shape: Shape) -> Array:
    """``blocks``, with an entry for each block along each axis, spread over ``shape``."""
    for axis, size in enumerate(shape):
        if 1 < blocks.shape[axis] < size:
            blocks = np.repeat(blocks, size // blocks.shape[axis], axis)
    return np.broadcast_to(blocks, shape)


def bits_per_weight(form: Form) -> float:
    """Scales, tables and masks included."""
    return form.stored_bits / float(np.prod(form.shape))


def snr_db(weight: Array, dense: Array) -> float:
    """Signal to noise of what became of a weight, in dB; infinities, as masks have, aside."""
    finite = np.isfinite(weight)
    signal = weight[finite].astype(np.float64)
    noise = signal - dense[finite].astype(np.float64)
    power = float(np.square(noise).sum())
    return float(10 * np.log10(np.square(signal).sum() / power)) if power else float("inf")


def _bits(array: Array) -> int:
    return int(array.nbytes * 8)


def _granularity(blocks: list[Any], shape: Shape) -> str:
    """How much of a weight shares one scale or table, in words."""
    cut = [(axis, b) for axis, b in enumerate(blocks) if b != shape[axis]]
    if not cut:
        return "per tensor"
    if len(cut) == 1:
        ((_, size),) = cut
        return "per channel" if size == 1 else f"per {size} channels"
    return f"in blocks of {cut[-1][1]}"
