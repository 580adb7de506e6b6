"""Operations that packages have of some types only, on operands of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from ..graph import Graph, Node
from ..ops import OPS, op
from .builder import Builder, Rewrite, rewritten


def fit_types(graph: Graph) -> Graph:
    """What a package has of numbers, or of floats, only is computed in them.

    ``takes`` in the table of operations says so. Truth values become zeros and ones; integers
    become floats, which hold those up to 2**24, and are padded by concatenation instead.
    """
    return rewritten(graph, _RULES)


def _converted(to: Builder, node: Node) -> Sequence[str] | None:
    known, out = op(node.op), node.output
    dtype = to.values[node.inputs[0]].dtype
    kind = np.dtype(dtype).kind
    if kind in known.same_of:
        return [node.inputs[0]]
    if kind in "fc" or known.takes == "any" or (kind != "b" and known.takes == "numbers"):
        return None
    wide = "float32" if known.takes == "floats" else "int32"
    inputs = [_cast(to, i, wide) if to.values[i].dtype == dtype else i for i in node.inputs]
    comes_back = out.dtype == dtype
    given = wide if comes_back else out.dtype
    made = to.add(node.op, inputs, out.shape, *node.args, like=out.name, dtype=given)
    if not comes_back:
        return [made]
    if wide == "float32":  # a mean of whole numbers, times their count, is not quite whole
        made = to.add("Round", [made], out.shape, like=made)
    return [_cast(to, made, dtype)]


def _cast(to: Builder, name: str, dtype: str) -> str:
    known, kind = to.known(name), getattr(mx, "bool_" if dtype == "bool" else dtype)
    if known is not None:
        return to.constant(known.astype(dtype), name)
    return to.add("AsType", [name], to.shape(name), kind, like=name, dtype=dtype)


def _padded(to: Builder, node: Node) -> Sequence[str] | None:
    """Of integers and truth values: what is around them, concatenated axis by axis."""
    x, value = node.inputs
    dtype, around = to.values[x].dtype, to.known(value)
    if np.dtype(dtype).kind == "f" or around is None:
        return None
    for axis, low, high in _widths(node):
        before, after = (_full(to, x, axis, n, around) if n else "" for n in (low, high))
        x = _joined(to, [before, x, after], axis)
    return [x]


def _edge_padded(to: Builder, node: Node) -> Sequence[str] | None:
    """Of integers and truth values: the edges are taken again and again."""
    x = node.inputs[0]
    if np.dtype(to.values[x].dtype).kind == "f":
        return None
    for axis, low, high in _widths(node):
        shape = list(to.shape(x))
        at = np.clip(np.arange(-low, shape[axis] + high), 0, shape[axis] - 1)
        shape[axis] = len(at)
        index = to.constant(at.astype(np.int32), node.output.name)
        x = to.add("Take", [x, index], tuple(shape), axis, like=x)
    return [x]


def _widths(node: Node) -> list[tuple[int, int, int]]:
    """Each axis that is padded, with how much in front and behind."""
    found = zip(node["axes"], node["low"], node["high"], strict=True)
    return [(axis, low, high) for axis, low, high in found if low or high]


def _full(to: Builder, x: str, axis: int, count: int, value: Any) -> str:
    shape = [count if a == axis else n for a, n in enumerate(to.shape(x))]
    return to.constant(np.full(shape, value, to.values[x].dtype), x)


def _joined(to: Builder, parts: Sequence[str], axis: int) -> str:
    given = [part for part in parts if part]
    shape = list(to.shape(parts[1]))
    shape[axis] = sum(to.shape(part)[axis] for part in given)
    return to.add("Concatenate", given, tuple(shape), axis, like=parts[1])


_RULES: dict[str, Rewrite] = {
    "Pad": _padded,
    "EdgePad": _edge_padded,
    **{o.name: _converted for o in OPS.values() if o.same_of or o.takes != "any"},
}
