"""Which code for which value: the nearest, or by GPTQ, so that a layer's output changes least.

A weight is seen as a matrix of outputs by inputs, split into groups as its convolution is;
with calibration each group knows the second moments H of its inputs, and an error E in the
weight costs trace(E H E^T).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..graph.graph import Array, Shape
from .forms import Affine, Palette, spread
from .kmeans import kmeans, nearest

_BLOCK = 32  # columns
_DAMPING = 0.01  # of H's mean diagonal, added to it
_SHRINK = np.linspace(1, 0.6, 17)  # scales tried, as shares of the one that clips nothing


@dataclass(frozen=True)
class Statistics:
    """Of a layer's inputs: second moments (groups, inputs, inputs), means, some values.

    Inputs are ordered as in a channels-first weight: channel, then position in the kernel.
    """

    moments: Array
    means: Array  # (groups, inputs)
    values: Array  # (some, channels)
    peaks: Array  # (channels,): the largest absolute value

    def centred(self) -> Statistics:
        """About the means: what counts where a bias takes up the mean of an error."""
        about = self.moments - self.means[:, :, None] * self.means[:, None]
        return replace(self, moments=about, means=np.zeros_like(self.means))

    def divided(self, factors: Array) -> Statistics:
        """Of the same inputs, each channel divided by its factor."""
        groups, inputs = self.means.shape
        each = factors.reshape(groups, -1)
        each = np.repeat(each, inputs // each.shape[1], axis=1)
        return Statistics(
            self.moments / (each[:, :, None] * each[:, None]),
            self.means / each,
            self.values / factors.astype(np.float32),
            self.peaks / factors,
        )

    @cached_property
    def order(self) -> Array:
        """Inputs by falling second moment: the order in which they are rounded."""
        return np.argsort(-np.diagonal(self.moments.mean(axis=0)), kind="stable")

    @cached_property
    def factor(self) -> Array:
        """The upper Cholesky factor of the inverse of the damped moments, in that order.

        Of inputs that hardly vary, rounding leaves moments below zero: they count as zero.
        """
        moments = self.moments[:, self.order][:, :, self.order]
        damping = _DAMPING * np.diagonal(moments, axis1=1, axis2=2).mean(axis=1)
        values, vectors = np.linalg.eigh(moments)
        least = np.maximum(damping, 1e-12)[:, None]
        inverse = (vectors / (np.maximum(values, 0) + least)[:, None]) @ vectors.swapaxes(1, 2)
        return np.linalg.cholesky(inverse).swapaxes(1, 2)


@dataclass(frozen=True)
class Weight:
    """A constant to compress: channels-first, its outputs along ``axis``."""

    path: str
    value: Array
    dtype: Any = np.float16
    axis: int = 0
    statistics: Statistics | None = None
    mask: Array | None = None  # zero where the value is not stored
    before: Array | None = None  # the value before it was masked

    @property
    def original(self) -> Array:
        """The value before it was masked."""
        return self.value if self.before is None else self.before

    @property
    def is_mask(self) -> bool:
        """Whether it has two values only, as what hides positions from attention has."""
        ends = self.value.min(), self.value.max()
        return bool(((self.value == ends[0]) | (self.value == ends[1])).all())

    def masked(self, mask: Array) -> Weight:
        """The weight with zeros where ``mask`` has them."""
        value = np.where(mask, self.value, 0)
        return replace(self, value=value, mask=mask, before=self.value)

    def importance(self) -> Array:
        """How much a squared error in each element matters: all the same if unknown.

        Moments about the mean are differences of large values where inputs hardly vary:
        what rounding leaves below zero counts as zero.
        """
        if self.statistics is None:
            return np.ones_like(self.value)
        groups = len(self.statistics.means)
        diagonal = np.maximum(np.diagonal(self.statistics.moments, axis1=1, axis2=2), 0)
        rows = np.repeat(diagonal, self.value.shape[0] // groups, axis=0)
        return rows.reshape(self.value.shape)

    def counted(self) -> Array:
        """``importance``, but zero where the mask is."""
        return self.importance() * (1 if self.mask is None else self.mask)

    def takes_gptq(self, rounding: str) -> bool:
        """Whether GPTQ chooses its codes: that needs statistics, and outputs along axis 0."""
        return self.statistics is not None and self.axis == 0 and rounding != "nearest"


def output_error(weight: Weight, dense: Array) -> float:
    """The mean square of what a layer's output loses, summed over its outputs."""
    assert weight.statistics is not None
    groups, inputs = weight.statistics.means.shape
    lost = (weight.value - dense.astype(np.float64)).reshape(groups, -1, inputs)
    return max(float(((lost @ weight.statistics.moments) * lost).sum()), 0.0)


Quantizer = Callable[[int, Array], tuple[Array, Array]]  # column, values -> codes, values


def scaled(weight: Weight, bits: int, blocks: Shape, *, affine: bool, rounding: str) -> Affine:
    """Integers with a scale for each of ``blocks`` along each axis."""
    low, high = _extremes(weight.value, blocks)
    naive = rounding == "nearest"
    if affine:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        return _affine(weight, bits, low, high)
    top = np.maximum(-low, high)
    limit = 2 ** (bits - 1) - 1
    scale = top if naive or bits == 8 else top * _best_shrink(weight, top, limit)
    scale = _usable(scale / limit, weight.dtype)
    whole = spread(scale, weight.value.shape).astype(np.float64)
    if not weight.takes_gptq(rounding):
        codes = np.clip(np.rint(weight.value / whole), -limit, limit)
        return Affine(codes.astype(np.int8), scale, bits)
    columns = whole.reshape(len(whole), -1)

    def quantizer(column: int, values: Array) -> tuple[Array, Array]:
        step = columns[:, column]
        codes = np.clip(np.rint(values / step), -limit, limit)
        return codes, codes * step

    return Affine(_gptq(weight, quantizer)[0].astype(np.int8), scale, bits)


def _affine(weight: Weight, bits: int, low: Array, high: Array) -> Affine:
    top = 2**bits - 1
    scale = _usable((high - low) / top, weight.dtype)
    offset = np.clip(np.rint(-low / scale.astype(np.float64)), 0, top)
    shape = weight.value.shape
    codes = np.rint(weight.value / spread(scale, shape).astype(np.float64))
    codes = np.clip(codes + spread(offset, shape), 0, top)
    return Affine(codes.astype(np.uint8), scale, bits, offset.astype(np.uint8))


def palette(
    weight: Weight, bits: int, groups: int, table_bits: int, *, rounding: str
) -> Palette:
    """The best table for each of ``groups`` runs of channels, and an index an element.

    With calibration, centres are weighted by what an error costs (Kim et al., "SqueezeLLM",
    2023) and the indices chosen by GPTQ.
    """
    axis, naive = weight.axis, rounding == "nearest"
    counted = np.ones_like(weight.value) if naive and weight.mask is None else weight.counted()
    parts = zip(
        np.split(weight.value, groups, axis), np.split(counted, groups, axis), strict=True
    )
    tables = np.stack([kmeans(part, 2**bits, count) for part, count in parts])
    shape = [1] * weight.value.ndim
    shape[axis] = groups
    table, scale = _stored(tables.reshape(*shape, 2**bits), table_bits, weight.dtype)
    form = Palette(np.zeros(weight.value.shape, np.uint8), table, bits, scale)
    values = form.values().reshape(groups, -1).astype(np.float64)
    if not weight.takes_gptq(rounding):
        return replace(form, indices=nearest_entries(weight, values))
    quantizer = _look_up(values, weight.value.shape[0] // groups)
    return replace(form, indices=_gptq(weight, quantizer)[0].astype(np.uint8))


def nearest_entries(weight: Weight, tables: Array) -> Array:
    """An index an element; each of the sorted ``tables`` is of a run of channels."""
    runs = np.split(weight.value, len(tables), weight.axis)
    indices = [nearest(run, table) for run, table in zip(runs, tables, strict=True)]
    return np.concatenate(indices, weight.axis)


def pruned(weight: Weight, *, rounding: str) -> Array:
    """The weight with zeros where its mask has them, the others making up for what went.

    Frantar and Alistarh, "SparseGPT: massive language models can be accurately pruned in
    one-shot", 2023, with the mask given.
    """
    if not weight.takes_gptq(rounding):
        return weight.value.astype(weight.dtype)
    return _gptq(weight, lambda _, wanted: (wanted, wanted))[1].astype(weight.dtype)


def _look_up(tables: Array, channels: int) -> Quantizer:
    """The nearest entry, each run of ``channels`` in its own table: one search in all of them.

    The tables lie end to end, each moved beyond the one before; so are the values.
    """
    apart = 4 * (np.abs(tables).max() + 1)
    shift = np.arange(len(tables)) * apart
    middles = (tables[:, 1:] + tables[:, :-1]) / 2
    ends = np.full((len(tables), 1), 0.5 * apart)
    marks = (np.hstack([middles, ends]) + shift[:, None]).ravel()[:-1]
    own = np.repeat(shift, channels)
    entries, flat = tables.shape[1], tables.ravel()

    def quantizer(_: int, wanted: Array) -> tuple[Array, Array]:
        limited = np.clip(wanted, -0.4 * apart, 0.4 * apart)
        index = np.searchsorted(marks, limited + own)
        return index % entries, flat[index]

    return quantizer


def _stored(tables: Array, table_bits: int, dtype: Any) -> tuple[Array, Array | None]:
    """Tables as they are kept, sorted still; and their scale, if they are integers."""
    if table_bits == 16:
        return tables.astype(dtype), None
    top = np.abs(tables).max(axis=-1, keepdims=True)
    scale = _usable(top / 127, dtype)
    return np.clip(np.rint(tables / scale.astype(np.float64)), -127, 127).astype(np.int8), scale


def _gptq(weight: Weight, quantizer: Quantizer) -> tuple[Array, Array]:
    """Codes and values column by column, each error made up for by the columns still free.

    Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained
    transformers", 2022. Columns go by falling second moment. All groups of a grouped
    convolution go at once.
    """
    assert weight.statistics is not None
    order, factor = weight.statistics.order, weight.statistics.factor
    groups, inputs, _ = factor.shape
    outputs = weight.value.shape[0]
    rest = weight.original.reshape(groups, outputs // groups, inputs).astype(np.float64)
    rest = np.ascontiguousarray(rest[:, :, order])
    mask = (
        np.ones((outputs, inputs)) if weight.mask is None else weight.mask.reshape(outputs, -1)
    )
    codes, values = np.zeros((outputs, inputs)), np.zeros((outputs, inputs))
    errors = np.zeros((groups, outputs // groups, _BLOCK))
    for i, column in enumerate(order):
        start = i - i % _BLOCK
        end = min(start + _BLOCK, inputs)
        wanted = rest[:, :, i].reshape(outputs)
        codes[:, column], got = quantizer(int(column), wanted)
        values[:, column] = got * mask[:, column]
        error = (wanted - values[:, column]).reshape(groups, -1) / factor[:, i, i, None]
        errors[:, :, i - start] = error
        rest[:, :, i + 1 : end] -= error[:, :, None] * factor[:, None, i, i + 1 : end]
        if i + 1 == end < inputs:  # what lies behind the block learns of it at once
            rest[:, :, end:] -= errors @ factor[:, start:end, end:]
    return codes.reshape(weight.value.shape), values.reshape(weight.value.shape)


def _extremes(value: Array, blocks: Shape) -> tuple[Array, Array]:
    """Least and greatest of each block, with the rank of the value."""
    split = [n for size, b in zip(value.shape, blocks, strict=True) for n in (b, size // b)]
    axes = tuple(range(1, 2 * value.ndim, 2))
    parts = value.reshape(split)
    return parts.min(axis=axes).reshape(blocks), parts.max(axis=axes).reshape(blocks)


def _best_shrink(weight: Weight, top: Array, limit: int) -> Array:
    """How far to lower each block's range so that rounding and clipping cost least together."""
    count = weight.counted()
    best, least = np.ones_like(top), np.full(top.shape, np.inf)
    for share in _SHRINK:
        step = spread(np.maximum(top * share / limit, 1e-12), weight.value.shape)
        got = np.clip(np.rint(weight.value / step), -limit, limit) * step
        error = _block_sum(count * np.square(weight.value - got), top.shape)
        best, least = np.where(error < least, share, best), np.minimum(error, least)
    return best


def _block_sum(value: Array, blocks: Shape) -> Array:
    split = [n for size, b in zip(value.shape, blocks, strict=True) for n in (b, size // b)]
    return value.reshape(split).sum(axis=tuple(range(1, 2 * value.ndim, 2))).reshape(blocks)


def _usable(scale: Array, dtype: Any) -> Array:
    """The scale as stored: never zero, never below what the type holds precisely."""
    least = float(np.finfo(dtype).smallest_normal)
    return np.maximum(scale, least).astype(dtype)
