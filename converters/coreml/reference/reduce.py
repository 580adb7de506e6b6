"""Reductions, softmax, and what orders or accumulates along an axis."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .registry import Array, evaluates, ints

Reduction = Callable[..., Any]


def _log_sum_exp(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    top = x.max(axis=axis, keepdims=True)
    total = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return total if keepdims else np.asarray(np.squeeze(total, axis))


def _after(reduction: Reduction, before: Reduction | None, then: Reduction | None) -> Reduction:
    def reduce(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Any:
        y = reduction(before(x) if before else x, axis=axis, keepdims=keepdims)
        return then(y) if then else y

    return reduce


REDUCTIONS: dict[str, Reduction] = {
    "reduce_mean": np.mean,
    "reduce_sum": np.sum,
    "reduce_prod": np.prod,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_sum_square": _after(np.sum, np.square, None),
    "reduce_l1_norm": _after(np.sum, np.abs, None),
    "reduce_l2_norm": _after(np.sum, np.square, np.sqrt),
    "reduce_log_sum": _after(np.sum, None, np.log),
    "reduce_log_sum_exp": _log_sum_exp,
}


def _reduce(
    x: Array, axes: Array | None = None, keep_dims: bool = False, *, by: Reduction
) -> Array:
    result = by(x, axis=None if axes is None else ints(axes), keepdims=bool(keep_dims))
    return np.asarray(result, x.dtype)


for _op_type, _by in REDUCTIONS.items():
    evaluates(_op_type, exact=_op_type in ("reduce_max", "reduce_min"))(
        partial(_reduce, by=_by)
    )


def _arg_reduce(
    x: Array,
    axis: int = -1,
    keep_dims: bool = False,
    output_dtype: str = "int32",
    *,
    by: Reduction,
) -> Array:
    return np.asarray(by(x, axis=int(axis), keepdims=bool(keep_dims)), output_dtype)


evaluates("reduce_argmax")(partial(_arg_reduce, by=np.argmax))
evaluates("reduce_argmin")(partial(_arg_reduce, by=np.argmin))


@evaluates("softmax")
def softmax(x: Array, axis: int = -1) -> Array:
    y = x - x.max(axis=int(axis), keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=int(axis), keepdims=True)
    return y


@evaluates("cumsum")
def cumsum(x: Array, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Array:
    axis = int(axis)
    source = np.flip(x, axis) if reverse else x
    total = np.cumsum(source, axis, dtype=x.dtype)
    if exclusive:
        total = total - source
    return np.flip(total, axis) if reverse else total


@evaluates("argsort")
def argsort(x: Array, axis: int = -1, ascending: bool = False) -> Array:
    order = np.argsort(x if ascending else -x, axis=int(axis), kind="stable")
    return order.astype(np.int32)


@evaluates("topk", exact=True)
def topk(
    x: Array,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Any:
    order = np.argsort(x if ascending else -x, axis=int(axis), kind="stable")
    chosen = np.take(order, np.arange(int(k)), axis=int(axis))
    values = np.take_along_axis(x, chosen, int(axis))
    return (values, chosen.astype(output_indices_dtype)) if return_indices else values
