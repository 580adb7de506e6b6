"""Reductions over axes, and what orders or accumulates along one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var, types

from ondevice.errors import UnsupportedOpError

from ...graph.graph import Node
from ..registry import lower
from .elementwise import wrapped

_KINDS: dict[str, Callable[..., Var]] = {
    "sum": mb.reduce_sum,
    "prod": mb.reduce_prod,
    "min": mb.reduce_min,
    "max": mb.reduce_max,
    "mean": mb.reduce_mean,
}
_ARG_KINDS: dict[str, Callable[..., Var]] = {"min": mb.reduce_argmin, "max": mb.reduce_argmax}


_LOGICAL = {"any": mb.reduce_max, "all": mb.reduce_min}


@lower("Reduce")
def reduce(node: Node, x: Var, kind: str, axes: tuple[int, ...], keep: bool) -> Var:
    """Core ML reduces numbers: truths become zeros and ones, and the result one again."""
    if kind in _LOGICAL:
        truth = x if x.dtype == types.bool else mb.not_equal(x=x, y=_zero(x))
        ones = mb.cast(x=truth, dtype="int32")
        y = _LOGICAL[kind](x=ones, axes=list(axes), keep_dims=keep)
        return mb.cast(x=y, dtype="bool")
    if x.dtype == types.bool:
        x = mb.cast(x=x, dtype="int32")
    y = _KINDS[kind](x=x, axes=list(axes), keep_dims=keep)
    return mb.cast(x=y, dtype="bool") if node.output.dtype == "bool" else y


def _zero(x: Var) -> Any:
    return types.nptype_from_builtin(x.dtype)(0)


@lower("ArgReduce")
def arg_reduce(node: Node, x: Var, kind: str, axis: int) -> Var:
    keep = len(node.output.shape) == len(x.shape)
    return _ARG_KINDS[kind](x=x, axis=axis, keep_dims=keep)


@lower("LogSumExp")
def log_sum_exp(node: Node, x: Var) -> Var:
    return mb.reduce_log_sum_exp(x=x, axes=[-1], keep_dims=True)


_PAIRS: dict[str, Callable[..., Var]] = {
    "max": mb.maximum,
    "min": mb.minimum,
    "prod": mb.mul,
    "sum": mb.add,
}


@lower("Scan")
def scan(node: Node, x: Var, kind: str, axis: int, reverse: bool, inclusive: bool) -> Var:
    """Core ML has running sums; other runs double their reach in each of log2(n) steps."""
    if kind == "sum":
        x = mb.cast(x=x, dtype="int32") if x.dtype == types.bool else x
        y = mb.cumsum(x=x, axis=axis, reverse=reverse, exclusive=not inclusive)
        return wrapped(y, node.output.dtype)
    if kind not in _PAIRS:
        raise UnsupportedOpError(f"no running {kind}; compute it outside")
    if not inclusive:
        x = _shifted(x, kind, axis, reverse)
    count, reach = x.shape[axis], 1
    while reach < count:
        near, far = _cut(x, axis, 0, reach), _cut(x, axis, reach, count)
        ahead, last = _cut(x, axis, 0, count - reach), _cut(x, axis, count - reach, count)
        parts = [_PAIRS[kind](x=ahead, y=far), last] if reverse else [near]
        parts = parts if reverse else [*parts, _PAIRS[kind](x=far, y=ahead)]
        x, reach = mb.concat(values=parts, axis=axis), 2 * reach
    return wrapped(x, node.output.dtype)


def _cut(x: Var, axis: int, start: int, stop: int) -> Var:
    begin = [start if a == axis else 0 for a in range(len(x.shape))]
    end = [stop if a == axis else n for a, n in enumerate(x.shape)]
    return mb.slice_by_index(x=x, begin=begin, end=end)


def _shifted(x: Var, kind: str, axis: int, reverse: bool) -> Var:
    """One further, with what changes nothing in the first place."""
    dtype = types.nptype_from_builtin(x.dtype)
    ends = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    neutral = {"max": ends.min, "min": ends.max, "prod": 1}[kind]
    shape = [1 if a == axis else n for a, n in enumerate(x.shape)]
    first, count = mb.const(val=np.full(shape, neutral, dtype)), x.shape[axis]
    kept = _cut(x, axis, 1, count) if reverse else _cut(x, axis, 0, count - 1)
    return mb.concat(values=[kept, first] if reverse else [first, kept], axis=axis)


@lower("Sort", "Partition")
def sort(node: Node, x: Var, *where: int) -> Var:
    """In rising order; a partition is content with any order on either side of its position."""
    axis = where[-1]
    count = x.shape[axis]
    return mb.topk(x=x, k=count, axis=axis, ascending=True, sort=True)[0]


@lower("ArgSort", "ArgPartition")
def arg_sort(node: Node, x: Var, *where: int) -> Var:
    return mb.argsort(x=x, axis=where[-1], ascending=True)
