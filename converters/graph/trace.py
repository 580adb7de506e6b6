"""Record what an MLX module computes, as a graph whose constants are its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from ondevice.errors import ConfigError

from .graph import COMPUTED, Graph
from .passes.dead_code import remove_dead_code
from .passes.duplicates import merge_duplicates
from .record import trace_function


def trace(model: nn.Module, *inputs: mx.array, fn: Callable[..., Any] | None = None) -> Graph:
    """Record the primitives that ``model(*inputs)`` runs, in float32.

    ``fn(*inputs)``, if given, is recorded instead: anything that calls ``model``. Parameters
    enter the traced function by keyword, so that MLX reports them by name. Tracing on the
    CPU stream gives the same graph on every machine: fast kernels such as
    ``mx.fast.layer_norm`` are recorded as the primitives they stand for. The model is left as
    it was. Raises ConfigError for a model in training mode, and for one that computes
    something else when it is called again (a counter, random numbers): a package cannot.
    """
    if model.training:
        raise ConfigError("trace a model in eval mode: call model.eval() first")
    call = fn or model
    _check_attributes(model.parameters())
    params: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    named = {k: _float32(v) for k, v in params.items()}

    def twice(*xs: mx.array, **arrays: mx.array) -> Any:
        model.update(tree_unflatten(list(arrays.items())))
        return [*_arrays(call(*xs)), *_arrays(call(*xs))]

    with left_as_it_was(model):
        return _first_call(trace_function(twice, *map(_float32, inputs), **named))


def _check_attributes(tree: Any, path: str = "") -> None:
    """Raise ConfigError for a name from which a parameter's path cannot be made."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in items:
        if isinstance(name, str) and (not name or "." in name or name.startswith(COMPUTED)):
            raise ConfigError(
                f"{path or 'the module'} has a parameter or part called {name!r}; a name is "
                f"not empty, has no dot and does not start with {COMPUTED}"
            )
        if isinstance(value, dict | list | tuple):
            _check_attributes(value, f"{path}.{name}" if path else str(name))


def flat_outputs(result: Any) -> dict[str, mx.array]:
    """What a module gives, by name. Raises ConfigError."""
    return {str(i): array for i, array in enumerate(_arrays(result))}


def _arrays(result: Any) -> list[mx.array]:
    """What a module gives, as a list. Raises ConfigError."""
    arrays = list(result) if isinstance(result, list | tuple) else [result]
    if other := {type(a).__name__ for a in arrays if not isinstance(a, mx.array)}:
        raise ConfigError(
            f"the module gives {', '.join(sorted(other))}; return an array, or a list or "
            "tuple of arrays"
        )
    return arrays


def _first_call(graph: Graph) -> Graph:
    """The graph of one call, of two in a row that have to give the same values."""
    merged = merge_duplicates(graph)
    count = len(merged.outputs) // 2
    first, second = merged.outputs[:count], merged.outputs[count:]
    if first != second:
        raise ConfigError(
            "the module computes something else when it is called a second time; a package "
            "cannot: take out what counts, caches its inputs or draws random numbers"
        )
    return remove_dead_code(replace(merged, outputs=first)).check()


def _float32(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo what tracing does to a module: placeholders in place of arrays, states, caches."""
    found: dict[int, tuple[Any, Any, dict[str, Any]]] = {}

    def remember(value: Any) -> None:
        if id(value) in found or not isinstance(value, dict | list | tuple):
            return
        attributes = dict(getattr(value, "__dict__", {}))
        contents = dict(value) if isinstance(value, dict) else list(value)
        found[id(value)] = value, contents, attributes
        children = contents.values() if isinstance(contents, dict) else contents
        for child in (*children, *attributes.values()):
            remember(child)

    remember(model)
    try:
        yield
    finally:
        for value, contents, attributes in found.values():
            if isinstance(value, dict):
                value.clear()
                dict.update(value, contents)  # a module's own method is another
            elif isinstance(value, list):
                value[:] = contents
            if attributes or hasattr(value, "__dict__"):
                vars(value).clear()
                vars(value).update(attributes)
