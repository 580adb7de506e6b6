"""In which module a value is computed.

A trace does not say, so that a second one is made in which every module marks what goes in
and comes out of it, with an operation that depends on the mark's number.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .graph import Graph
from .passes.dead_code import remove_dead_code
from .passes.duplicates import merge_duplicates
from .record import Record, numbered, primitives, to_graph

Stack = tuple[str, ...]
_MARK = (3, 1, 0)  # the shape of a mark, which no one else's dependency has


class Marks:
    """The numbers of modules, odd where one is left and even where it is entered."""

    def __init__(self, model: nn.Module) -> None:
        self.paths = [path for path, _ in model.named_modules()]
        self.number = {id(m): i for i, (_, m) in enumerate(model.named_modules())}

    def mark(self, value: Any, number: int) -> Any:
        if isinstance(value, mx.array):
            return mx.depends(value, mx.zeros((number + 1, *_MARK)))
        if type(value) is tuple:
            return tuple(self.mark(v, number) for v in value)
        return value

    def call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def marking(module: Any, *args: Any, **kwargs: Any) -> Any:
            number = self.number.get(id(module))
            if number is None:
                return original(module, *args, **kwargs)
            args = self.mark(args, 2 * number)
            kwargs = {k: self.mark(v, 2 * number) for k, v in kwargs.items()}
            return self.mark(original(module, *args, **kwargs), 2 * number + 1)

        return marking


@contextmanager
def marked(model: nn.Module) -> Iterator[Marks]:
    """Let every module of ``model`` mark the arrays that it is given and gives."""
    marks = Marks(model)
    bases = {c for _, m in model.named_modules() for c in type(m).__mro__}
    saved = {c: vars(c)["__call__"] for c in bases if "__call__" in vars(c)}
    try:
        for cls, original in saved.items():
            cls.__call__ = marks.call(original)  # type: ignore[method-assign]
        yield marks
    finally:
        for cls, original in saved.items():
            cls.__call__ = original  # type: ignore[method-assign]


def places_of(
    graph: Graph, records: list[Record], named: Mapping[str, mx.array], marks: Marks
) -> dict[str, str]:
    """The path of the module each value of ``graph`` is computed in, from a marked trace of it.

    Of nothing, if the module does something else when its arrays are marked.
    """
    stacks = {numbered(id_): stack for id_, stack in _stacks(records, marks).items()}
    twin = remove_dead_code(merge_duplicates(to_graph(records, named)))
    if [node.op for node in twin.nodes] != [node.op for node in graph.nodes]:
        return {}
    return {
        value.name: stacks[copy.name][-1] if stacks[copy.name] else ""
        for node, marked_node in zip(graph.nodes, twin.nodes, strict=True)
        for value, copy in zip(node.outputs, marked_node.outputs, strict=True)
        if copy.name in stacks
    }


def _stacks(records: list[Record], marks: Marks) -> dict[str, Stack]:
    """The modules around each value, the innermost last: from the outputs back."""
    [outputs] = (r for r in records if r["type"] == "outputs")
    stacks: dict[str, Stack] = {id_: () for id_, *_ in outputs["outputs"]}
    for r in reversed(primitives(records)):
        around = next((stacks[id_] for id_, *_ in r["outputs"] if id_ in stacks), None)
        if around is None:
            continue
        number = _number(r)
        if number is not None:
            path = marks.paths[number // 2]
            around = (*around, path) if number % 2 else around[:-1]
            stacks.setdefault(r["inputs"][0][0], around)
            continue
        for id_, *_ in r["inputs"]:
            stacks.setdefault(id_, around)
    return stacks


def _number(record: Record) -> int | None:
    """Of a mark, its number."""
    if record["name"] != "Depends":
        return None
    (_, shape, _) = record["inputs"][-1]
    return shape[0] - 1 if tuple(shape[1:]) == _MARK else None


def where_it_failed(model: nn.Module, error: BaseException) -> str:
    """The innermost module of ``model`` that an exception came through, and the line in it."""
    paths = {id(m): path for path, m in model.named_modules()}
    where = "the module"
    for frame, line in traceback.walk_tb(error.__traceback__):
        for value in list(frame.f_locals.values())[:1]:
            if id(value) in paths:
                code = frame.f_code
                name = paths[id(value)] or type(value).__name__
                where = f"{name} ({Path(code.co_filename).name}, line {line})"
    return where
