"""Weights that MLX holds in a few bits, kept in those bits where a package can hold them."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from ..graph.graph import Array, Graph
from ..graph.quantized import Quantized
from .apply import Compression, weights
from .forms import Affine, Form, snr_db, spread
from .rounding import Weight
from .storage import Level, Storage

# What a form has to be like, by its type: half precision's own rounding leaves 73 dB.
LEAST_DB = {"float16": 60.0, "float32": 120.0}
_WHOLE = 1e-6  # of itself: so near to a whole number, a zero point is one
_WIDTHS = (4, 8)  # bits, of codes that packages hold


def keep_bits(
    graph: Graph, who: str, *, storage: Storage, dtype: Any, float32: Collection[str] = ()
) -> Compression:
    """The channels-first ``graph`` with its quantized weights in their own bits.

    Those that ``storage`` cannot hold, or not as exactly as its floats, stay floats; a warning
    of ``who``, the model, names them. ``dtype`` and ``float32`` are as for ``weights``.
    """
    if not graph.quantized:
        return Compression(graph)
    forms: dict[str, Form] = {}
    lost: dict[str, str] = {}
    for weight in weights(graph, dtype, float32):
        quantized = graph.quantized.get(_parameter(weight.path))
        if quantized is None:
            continue
        form, why = _kept(weight, quantized, storage)
        if form is not None:
            forms[weight.path] = form
        else:
            lost[weight.path] = why
    _say(who, lost)
    constants = {**graph.constants, **{path: form.dense() for path, form in forms.items()}}
    return Compression(replace(graph, constants=constants), forms)


def _parameter(path: str) -> str:
    """The path of a parameter that is laid out a second time under its name with a number."""
    name, _, number = path.rpartition(".")
    return name if number.isdigit() else path


def _say(who: str, lost: dict[str, str]) -> None:
    for why in dict.fromkeys(lost.values()):
        paths = [path for path, other in lost.items() if other == why]
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        logging.getLogger("converters").warning(
            "%s: quantized %s%s stored as floats: %s",
            who,
            ", ".join(paths[:3]),
            f"{more} are" if len(paths) > 1 else " is",
            why,
        )


def _kept(weight: Weight, given: Quantized, storage: Storage) -> tuple[Form | None, str]:
    """A weight's own bits as a form, or why there is none."""
    if given.codes is None:
        return None, "no package holds MLX's small floats"
    laid = _laid(weight.value, given)
    if laid is None:
        return None, "other weights are folded into it"
    form = _form(laid, np.dtype(weight.dtype))
    needed = _level(form)
    if not storage.holds(needed):
        least = storage.names.get(needed)
        return None, f"target {least} holds its bits" if least else "the format cannot hold it"
    if not snr_db(weight.value, form.dense()) >= LEAST_DB[form.scale.dtype.name]:
        return None, f"scales in {form.scale.dtype} would change it"
    return form, ""


def _laid(value: Array, given: Quantized) -> Quantized | None:
    """The bits of ``value``, in its shape; None if that is something else by now.

    Passes may have given each output a factor, which goes into scales and biases.
    """
    codes = given.codes
    assert codes is not None
    if value.shape[: codes.ndim] != codes.shape or value.size != codes.size:
        return None
    absent = (1,) * (value.ndim - codes.ndim)
    codes, scales, biases = (
        x.reshape(*x.shape, *absent) for x in (codes, given.scales, given.biases)
    )
    dense = _spread(scales, codes) * codes + _spread(biases, codes)
    each = scales.shape[0] == codes.shape[0]
    axes = tuple(range(1, value.ndim)) if each else None
    power = np.square(dense).sum(axis=axes, keepdims=True)
    product = (dense * value).sum(axis=axes, keepdims=True)
    factor = np.divide(product, power, out=np.ones_like(power), where=power > 0)
    if snr_db(value, dense * factor) < LEAST_DB["float32"]:
        return None
    return Quantized(codes, scales * factor, biases * factor, given.bits)


def _spread(groups: Array, codes: Array) -> Array:
    return spread(groups, codes.shape).astype(np.float64)


def _form(given: Quantized, dtype: Any) -> Affine:
    """With positive scales, and zero points that are codes wherever they all can be."""
    assert given.codes is not None
    width = next(bits for bits in _WIDTHS if bits >= given.bits)
    last = 2**given.bits - 1
    falls = given.scales < 0
    codes = np.where(spread(falls, given.codes.shape), last - given.codes, given.codes)
    scales = np.abs(given.scales)
    biases = given.biases - np.where(falls, last * scales, 0)
    zero = np.divide(-biases, scales, out=np.zeros_like(scales), where=scales > 0)
    whole = np.round(zero)
    is_code = np.all(np.abs(zero - whole) <= _WHOLE * np.abs(whole))
    fits = is_code and whole.min() >= 0 and whole.max() < 2**width
    offset = whole.astype(np.uint8) if fits else zero.astype(dtype)
    return Affine(codes.astype(np.uint8), scales.astype(dtype), width, offset)


def _level(form: Affine) -> Level:
    """What holds the form: eight bits with a scale an output are held by all."""
    assert form.offset is not None
    if form.offset.dtype.kind == "f":
        return Level.OFFSETS
    blocks = list(zip(form.scale.shape, form.shape, strict=True))
    is_plain = form.bits == 8 and sum(n > 1 for n, _ in blocks) <= 1
    return Level.TENSORS if is_plain and all(n in (1, m) for n, m in blocks) else Level.BLOCKS
