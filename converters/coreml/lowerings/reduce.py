"""Reductions over axes, and what orders or accumulates along one."""

from __future__ import annotations

from collections.abc import Callable

from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var

from ondevice.errors import UnsupportedOpError

from ...graph.graph import Node
from ..registry import lower

_KINDS: dict[str, Callable[..., Var]] = {
    "sum": mb.reduce_sum,
    "prod": mb.reduce_prod,
    "min": mb.reduce_min,
    "max": mb.reduce_max,
    "mean": mb.reduce_mean,
}
_ARG_KINDS: dict[str, Callable[..., Var]] = {"min": mb.reduce_argmin, "max": mb.reduce_argmax}


@lower("Reduce")
def reduce(node: Node, x: Var, kind: str, axes: tuple[int, ...], keep: bool) -> Var:
    if kind not in _KINDS:
        raise UnsupportedOpError(f"a logical reduction: {node}")
    return _KINDS[kind](x=x, axes=list(axes), keep_dims=keep)


@lower("ArgReduce")
def arg_reduce(node: Node, x: Var, kind: str, axis: int) -> Var:
    keep = len(node.output.shape) == len(x.shape)
    return _ARG_KINDS[kind](x=x, axis=axis, keep_dims=keep)


@lower("LogSumExp")
def log_sum_exp(node: Node, x: Var) -> Var:
    return mb.reduce_log_sum_exp(x=x, axes=[-1], keep_dims=True)


@lower("Scan")
def scan(node: Node, x: Var, kind: str, axis: int, reverse: bool, inclusive: bool) -> Var:
    """Running sums; MLX's other scans (product, minimum, …) have no op."""
    if kind != "sum":
        raise UnsupportedOpError(f"a scan that is not a sum: {node}")
    return mb.cumsum(x=x, axis=axis, reverse=reverse, exclusive=not inclusive)


@lower("Sort", "Partition")
def sort(node: Node, x: Var, *where: int) -> Var:
    """In rising order; a partition is content with any order on either side of its position."""
    axis = where[-1]
    count = x.shape[axis]
    return mb.topk(x=x, k=count, axis=axis, ascending=True, sort=True)[0]


@lower("ArgSort", "ArgPartition")
def arg_sort(node: Node, x: Var, *where: int) -> Var:
    return mb.argsort(x=x, axis=where[-1], ascending=True)
