"""What a module gives: arrays, and the names that their keys and positions give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import mlx.core as mx

from ondevice.errors import ConfigError

Path = tuple[str | int, ...]


def arrays_in(result: Any) -> dict[Path, mx.array]:
    """Every array of a result by its path: keys, fields and positions. Raises ConfigError."""
    found = list(_leaves(result))
    arrays = {path: leaf for path, leaf in found if isinstance(leaf, mx.array)}
    if not arrays:
        given = ", ".join(sorted({type(leaf).__name__ for _, leaf in found})) or "nothing"
        raise ConfigError(
            f"the module gives {given}; return an array, or arrays in a tuple, a list, a dict "
            "or a dataclass"
        )
    return arrays


def left_out_of(result: Any) -> dict[str, str]:
    """The type of all that is no array, by its name: no output. None is not worth a word."""
    return {
        _name(path): type(leaf).__name__
        for path, leaf in _leaves(result)
        if leaf is not None and not isinstance(leaf, mx.array)
    }


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    items: Any = None
    if isinstance(value, dict):
        items = value.items()
    elif hasattr(value, "_fields"):
        items = zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif is_dataclass(value) and not isinstance(value, type):
        items = ((f.name, getattr(value, f.name)) for f in fields(value))
    if items is None:
        yield path, value
        return
    for key, child in items:
        yield from _leaves(child, (*path, key))


def names_of(arrays: dict[Path, mx.array]) -> tuple[str, ...]:
    """``logits`` for a key, ``output_1`` for a position, ``boxes_0`` for a key's position."""
    only = len(arrays) == 1 and all(isinstance(key, int) for path in arrays for key in path)
    return tuple("output" if only else _name(path) for path in arrays)


def _name(path: Path) -> str:
    start: Path = () if path and isinstance(path[0], str) else ("output",)
    return "_".join(map(str, (*start, *path)))
