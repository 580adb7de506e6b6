"""Reductions over axes, and what orders or accumulates along one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import coreai.authoring as ca
import numpy as np
from coreai.authoring import Value

from ondevice.errors import UnsupportedOpError

from ...graph.graph import Node
from ..registry import lower
from ..values import dtype_of, scalar, scaled, shape_of, signed
from .elementwise import as_number, as_truth, wrapped

Ints = tuple[int, ...]
_KINDS: dict[str, Callable[..., Value]] = {
    "sum": ca.reduce_sum,
    "prod": ca.reduce_product,
    "min": ca.reduce_min,
    "max": ca.reduce_max,
    "mean": ca.reduce_mean,
    "all": ca.all_,
    "any": ca.any_,
}


@lower("Reduce")
def reduce(node: Node, x: Value, kind: str, axes: Ints, keep: bool = True) -> Value:
    """Core AI keeps the axes, of length one."""
    if kind in {"all", "any"} and dtype_of(x) != np.bool_:
        x = ca.broadcasting_not_equal(x, scalar(x, 0))
    elif kind not in {"all", "any"}:
        x = as_number(x)
    y = _KINDS[kind](x, signed(axes))
    y = as_truth(y) if node.output.dtype == "bool" else y
    return y if keep else ca.shrink_dims(y, signed(axes))


@lower("ArgReduce")
def arg_reduce(node: Node, x: Value, kind: str, axis: int) -> Value:
    """There is no argmin: it is the argmax of what is negative."""
    y = ca.argmax(scaled(x, -1) if kind == "min" else x, np.int32(axis))
    y = ca.cast(y, np.int32)
    keep = len(node.output.shape) == len(shape_of(x))
    return y if keep else ca.shrink_dims(y, signed([axis]))


@lower("LogSumExp")
def log_sum_exp(node: Node, x: Value) -> Value:
    last = signed([len(shape_of(x)) - 1])
    most = ca.reduce_max(x, last)
    total = ca.reduce_sum(ca.exp(ca.broadcasting_sub(x, most)), last)
    return ca.broadcasting_add(most, ca.log(total))


_COMBINERS = {"sum": "sum", "prod": "product", "min": "min", "max": "max"}


@lower("Scan")
def scan(node: Node, x: Value, kind: str, axis: int, reverse: bool, inclusive: bool) -> Value:
    if kind not in _COMBINERS:
        raise UnsupportedOpError(f"a scan of this kind: {node}")
    x = as_number(x)
    if not inclusive and kind != "sum":
        x, inclusive = _shifted(x, kind, axis % len(shape_of(x)), reverse), True
    y = ca.scan(x, np.uint32(axis % len(shape_of(x))), np.bool_(reverse), _COMBINERS[kind])
    y = y if inclusive else ca.broadcasting_sub(y, x)
    return as_truth(y) if node.output.dtype == "bool" else wrapped(y, node.output.dtype)


def _shifted(x: Value, kind: str, axis: int, reverse: bool) -> Value:
    """One further, with what changes nothing in the first place."""
    dtype, shape = dtype_of(x), list(shape_of(x))
    ends: Any = np.iinfo(dtype) if dtype.kind == "i" else np.finfo(dtype)
    neutral = {"max": ends.min, "min": ends.max, "prod": 1}[kind]
    first = np.full([1 if a == axis else n for a, n in enumerate(shape)], neutral, dtype)
    begin, end = [0] * len(shape), [*shape]
    if reverse:
        begin[axis] = 1
    else:
        end[axis] -= 1
    kept = ca.slice_(x, signed(begin), signed(end), signed([1] * len(shape)))
    return ca.concat(np.int32(axis), [kept, first] if reverse else [first, kept])


@lower("Sort", "Partition")
def sort(node: Node, x: Value, *where: int) -> Value:
    """In rising order; a partition is content with any order on either side of its place."""
    return ca.sort(x, np.int32(where[-1]), np.bool_(False), np.bool_(True))


@lower("ArgSort", "ArgPartition")
def arg_sort(node: Node, x: Value, *where: int) -> Value:
    order = ca.argsort(x, np.int32(where[-1]), np.bool_(False), np.bool_(True))
    return ca.cast(order, np.int32)
