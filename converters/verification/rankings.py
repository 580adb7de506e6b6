"""Indices that rank values: as good as others that name values as large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..graph.graph import Array, Shape


@dataclass(frozen=True)
class Ranking:
    """``indices`` along an axis of ``values``, of which ``shape`` has as many axes."""

    indices: Array
    values: Array
    axis: int
    shape: Shape

    def compared(self, others: Array) -> tuple[Array, Array]:
        """The values that these indices name, and those that others do; NaN for no value."""
        return self._named(self.indices), self._named(others)

    def agreement(self, others: Array) -> float:
        """The share of the indices that are the same."""
        return float((self.indices.reshape(-1) == others.reshape(-1)).mean())

    def _named(self, indices: Array) -> Array:
        size = self.values.shape[self.axis]
        at = indices.astype(np.int64)
        inside = (at >= 0) & (at < size)
        wanted = np.where(inside, at, 0).reshape(self.shape)
        named = np.take_along_axis(self.values, wanted, self.axis).reshape(indices.shape)
        return np.where(inside, named, np.nan)


class Rankings:
    """What was ranked while a model ran, by the array of indices that came of it."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[mx.array, mx.array, int, Shape]] = {}

    def add(self, result: mx.array, values: mx.array, axis: int, shape: Shape) -> mx.array:
        self.known[id(result)] = result, values, axis, shape  # held, so that the id stays its
        return result

    def of(self, result: mx.array) -> Ranking | None:
        """The ranking that an output is, if it is one."""
        if id(result) not in self.known:
            return None
        _, values, axis, shape = self.known[id(result)]
        return Ranking(np.array(result), np.array(values.astype(mx.float32)), axis, shape)

    def passed_on(self, before: mx.array, after: Any) -> Any:
        """The same ranking in another type or form, or the first places of it."""
        if id(before) not in self.known or not isinstance(after, mx.array):
            return after
        _, values, axis, shape = self.known[id(before)]
        if after.size == before.size:
            return self.add(after, values, axis, shape)
        cut = list(shape)
        cut[axis] = after.shape[axis] if after.ndim == len(shape) else 0
        return self.add(after, values, axis, tuple(cut)) if after.shape == tuple(cut) else after


@contextmanager
def rankings() -> Iterator[Rankings]:
    """Watch what ranks; of the orders that MLX leaves open it takes the rising one.

    So do packages: the results of ``partition``, ``argpartition`` and ``topk`` can then be
    compared element by element.
    """
    found = Rankings()
    others = _others(found)
    saved = [(owner, name, vars(owner)[name]) for owner, name, _ in others]
    try:
        for owner, name, function in others:
            setattr(owner, name, function)
        yield found
    finally:
        for owner, name, function in saved:
            setattr(owner, name, function)


def _others(found: Rankings) -> list[tuple[Any, str, Callable[..., Any]]]:
    sort, argsort = mx.sort, mx.argsort
    original = {name: getattr(mx.array, name) for name in ("astype", "reshape", "__getitem__")}

    def ranks(x: mx.array, axis: int | None = -1, **options: Any) -> mx.array:
        x, axis = _flat(x, axis)
        result = argsort(x, axis, **options)
        return found.add(result, x, axis, result.shape)

    def best(of: Callable[..., mx.array]) -> Callable[..., mx.array]:
        def function(
            x: mx.array, axis: int | None = None, keepdims: bool = False, **options: Any
        ) -> mx.array:
            result = of(x, axis, keepdims, **options)
            x, axis = _flat(x, axis)
            shape = tuple(1 if a == axis else n for a, n in enumerate(x.shape))
            return found.add(result, x, axis, shape)

        return function

    def topk(x: mx.array, k: int, axis: int | None = -1, **options: Any) -> mx.array:
        x, axis = _flat(x, axis)
        every = [slice(None)] * x.ndim
        every[axis] = slice(x.shape[axis] - k, None)
        return sort(x, axis, **options)[tuple(every)]

    def follow(name: str) -> Callable[..., Any]:
        return lambda x, *args, **kwargs: found.passed_on(x, original[name](x, *args, **kwargs))

    return [
        (mx, "argsort", ranks),
        (mx, "argpartition", lambda x, kth, axis=-1, **options: ranks(x, axis, **options)),
        (mx, "partition", lambda x, kth, axis=-1, **options: sort(x, axis, **options)),
        (mx, "topk", topk),
        *((mx, name, best(getattr(mx, name))) for name in ("argmax", "argmin")),
        *((mx.array, name, best(getattr(mx.array, name))) for name in ("argmax", "argmin")),
        *((mx.array, name, follow(name)) for name in original),
    ]


def _flat(x: mx.array, axis: int | None) -> tuple[mx.array, int]:
    """Of no axis, all elements in a row."""
    return (x.flatten(), 0) if axis is None else (x, axis % x.ndim)
