"""Trace a module and leave it, and how MLX is set, as they were."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn

_OPAQUE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, mx.array)


def float32(array: mx.array) -> mx.array:
    """The array under another handle, floating numbers as float32."""
    is_float = mx.issubdtype(array.dtype, mx.floating)
    return array.astype(mx.float32 if is_float else array.dtype)


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo what tracing does to a module: placeholders in place of arrays, states, caches.

    Meanwhile its arrays are float32, and others than the caller's: what is assigned to their
    elements reaches none of his. So are the global arrays of the files that its classes are in.
    """
    found = _Contents(model)
    try:
        found.lend()
        yield
    finally:
        found.restore()


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """The module in eval mode, as it is exported, and left as it was."""
    with left_as_it_was(model):
        model.eval()
        yield


def numbers_in(model: nn.Module) -> dict[tuple[int, Any], tuple[str, Any]]:
    """The numbers and texts of a module and of its globals, each with what it is called."""
    contents = _Contents(model)
    groups = [
        *((id(names), "", held) for names, held in contents.globals),
        *((key, f"{type(v).__name__}.", own) for key, (v, _, own) in contents.found.items()),
        *(
            (key, f"{type(v).__name__}.", items)
            for key, (v, items, _) in contents.found.items()
            if isinstance(items, dict)
        ),
    ]
    return {
        (key, name): (f"{owner}{name}", held)
        for key, owner, items in groups
        for name, held in items.items()
        if isinstance(held, int | float | str)
    }


class _Contents:
    """What a module and all that it holds consist of, and the globals that hold arrays."""

    def __init__(self, model: nn.Module) -> None:
        self.found: dict[int, tuple[Any, Any, dict[str, Any]]] = {}
        self.lent: dict[int, mx.array] = {}  # lives as long as what it stands for
        self._remember([model])
        self.globals = [(names, _simple(names)) for names in _globals(model)]
        for names, _ in self.globals:
            self._remember([value for value in names.values() if _holds_arrays(value)])

    def _remember(self, todo: list[Any]) -> None:
        while todo:
            value = todo.pop()
            attributes = {} if isinstance(value, _OPAQUE) else _attributes(value)
            is_container = isinstance(value, dict | list | tuple | set)
            if id(value) in self.found or not (is_container or attributes):
                continue
            contents = _copied(value) if is_container else []
            self.found[id(value)] = value, contents, attributes
            children = contents.values() if isinstance(contents, dict) else contents
            todo += [*children, *attributes.values()]

    def lend(self) -> None:
        for value, contents, attributes in list(self.found.values()):
            if isinstance(value, dict):
                dict.update(value, self._with_arrays_lent(contents))
            elif isinstance(value, list):
                value[:] = [self._lent(v) for v in contents]
            for name, held in self._with_arrays_lent(attributes).items():
                _set(value, name, held)
        for names, held in self.globals:
            names.update(self._with_arrays_lent(held))
        mx.eval(list(self.lent.values()))  # else how they are made is recorded

    def _with_arrays_lent(self, items: dict[Any, Any]) -> dict[Any, Any]:
        return {k: self._lent(v) for k, v in items.items() if isinstance(v, mx.array | tuple)}

    def _lent(self, value: Any) -> Any:
        """The same stand-in for the same array, wherever it is held; a tuple of them anew."""
        if isinstance(value, tuple):
            items = [self._lent(v) for v in value]
            is_other = any(a is not b for a, b in zip(items, value, strict=True))
            make = getattr(value, "_make", type(value))  # a namedtuple's own
            return make(items) if is_other else value
        if not isinstance(value, mx.array):
            return value
        if id(value) not in self.lent:
            self.lent[id(value)] = float32(value)
        return self.lent[id(value)]

    def restore(self) -> None:
        for value, contents, attributes in self.found.values():
            if isinstance(value, dict):
                value.clear()
                dict.update(value, contents)  # a module's own method is another
            elif isinstance(value, list):
                value[:] = contents
            elif isinstance(value, set):
                value.clear()
                value.update(contents)
            if not isinstance(value, _OPAQUE):
                _put_back(value, attributes)
        for names, held in self.globals:
            names.update(held)


def _globals(model: nn.Module) -> list[dict[str, Any]]:
    """The names of the files that the classes in a module are defined in, MLX's aside."""
    files = dict.fromkeys(type(module).__module__ for module in model.modules())
    loaded = (sys.modules.get(name) for name in files if not name.startswith("mlx."))
    return [vars(file) for file in loaded if file is not None]


def _simple(names: dict[str, Any]) -> dict[str, Any]:
    """Arrays, numbers and what is None: what a global statement may set."""
    kinds = mx.array | int | float | None
    return {k: v for k, v in names.items() if isinstance(v, kinds) and not k.startswith("__")}


def _holds_arrays(value: Any) -> bool:
    """Whether it is a container of arrays alone, such as a cache, which may be empty."""
    if not isinstance(value, dict | list | set):
        return False
    held = value.values() if isinstance(value, dict) else value
    return all(isinstance(v, mx.array) for v in held)


def _attributes(value: Any) -> dict[str, Any]:
    """Those of its dictionary and of its slots."""
    slots = (
        name
        for cls in type(value).__mro__
        for name in _names_of(cls.__dict__.get("__slots__", ()))
        if not name.startswith("__") and hasattr(value, name)
    )
    return {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots}}


def _names_of(slots: Any) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _set(value: Any, name: str, held: Any) -> None:
    """Past what a class makes of it, as frozen ones and modules do."""
    if name in getattr(value, "__dict__", {}):
        vars(value)[name] = held
    else:
        object.__setattr__(value, name, held)


def _put_back(value: Any, attributes: dict[str, Any]) -> None:
    found = _attributes(value)
    for name in found.keys() - attributes.keys():
        if name in getattr(value, "__dict__", {}):
            del vars(value)[name]
        else:
            object.__delattr__(value, name)
    for name, held in attributes.items():
        if name not in found or found[name] is not held:
            _set(value, name, held)


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else list(value)


_MISSING = object()


@contextmanager
def plain_functions() -> Iterator[None]:
    """Functions of ``mx.compile`` and ``mx.custom_function`` run as what they are made of.

    And what MLX does not hand over is said in what it does: a copy, and the inverse of bits.
    A number of NumPy's leaves a product with an array to MLX; it would ask for the values.
    """
    was_compiling = _compiles()
    mx.disable_compile()
    others = (
        (mx, "contiguous", lambda x, *_, **__: x.astype(x.dtype)),
        (mx, "bitwise_invert", lambda x, **_: _inverted(x)),
        (mx.array, "__invert__", _inverted),
        (mx.array, "__array_ufunc__", None),
    )
    saved = [(owner, name, vars(owner).get(name, _MISSING)) for owner, name, _ in others]
    try:
        for owner, name, function in others:
            setattr(owner, name, function)
        with _called_directly(mx.custom_function):
            yield
    finally:
        for owner, name, function in saved:
            if function is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, function)
        if was_compiling:
            mx.enable_compile()


def _inverted(x: mx.array) -> mx.array:
    if x.dtype == mx.bool_:
        return mx.logical_not(x)
    return mx.array(-1).astype(x.dtype) - x


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Functions of ``mx.checkpoint`` run as what they are made of.

    MLX does not tell them from those of ``mx.vmap``: compare what comes out.
    """
    with _called_directly(type(mx.checkpoint(lambda x: x))):
        yield


@contextmanager
def _called_directly(kind: Any) -> Iterator[None]:
    """Objects of an MLX class that wraps a function call that function alone."""
    original = kind.__call__

    def call(wrapper: Any, *args: Any, **kwargs: Any) -> Any:
        inner = [f for f in gc.get_referents(wrapper) if callable(f) and f is not kind]
        return inner[0](*args, **kwargs)

    kind.__call__ = call
    try:
        yield
    finally:
        kind.__call__ = original


def _compiles() -> bool:
    """Whether ``mx.compile`` is in force, which MLX only shows by what it does."""
    calls: list[int] = []

    def fn(x: mx.array) -> mx.array:
        calls.append(1)
        return x

    compiled = mx.compile(fn)
    for _ in range(2):
        compiled(mx.array(0))
    return len(calls) == 1
