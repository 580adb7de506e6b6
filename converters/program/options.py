"""What the options of ``export`` and ``verify`` may be, checked before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ondevice.errors import ConfigError, PackageError


def is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    """Whether these are samples; the pixels of one image are rows, which pass for images."""
    one = str(getattr(value, "dtype", "")).endswith("uint8") and len(value.shape) < 4
    return isinstance(value, Iterable) and not (one or isinstance(value, str | bytes | Mapping))


def _is_recipe(value: Any) -> bool:
    return value is None or is_path(value) or hasattr(value, "rules")


def _are_gates(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and _is_number(limit) for name, limit in value.items()
    )


def _are_paths(value: Any) -> bool:
    return is_path(value) or (isinstance(value, Sequence) and all(map(is_path, value)))


PATH = "a path, as text or a Path"
_FUNCTION = (callable, "a function")
_YES_OR_NO = (lambda value: isinstance(value, bool), "True or False")
_EXPORT: dict[str, tuple[Callable[[Any], bool], str]] = {
    "path": (is_path, PATH),
    "also": (_are_paths, f"{PATH}, or a list of them"),
    "recipe": (_is_recipe, "a preset's name, a file or a CompressionRecipe"),
    "calibration": (_is_list, "a list of samples"),
    "budget": (lambda v: _is_number(v) and v >= 0, "a number of bytes"),
    "min_agreement": (lambda v: _is_number(v) and 0 <= v <= 1, "a share of 1"),
    "account": _FUNCTION,
    "timed": _FUNCTION,
    "front": _YES_OR_NO,
    "force": _YES_OR_NO,
    "golden": _YES_OR_NO,
}
_RUN_ON = ("reference", "device", "auto")
_VERIFY: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (lambda v: hasattr(v, "named_modules"), "an mlx.nn.Module"),
    "package": (lambda v: is_path(v) or hasattr(v, "predict"), f"{PATH}, or an opened package"),
    "images": (_is_list, "a list of samples"),
    "run_on": (lambda v: v in _RUN_ON, f"one of {', '.join(_RUN_ON)}"),
    "gates": (_are_gates, "a dict of metrics and their limits"),
    "baselines": _YES_OR_NO,
    "against": (lambda v: v is None or is_path(v) or hasattr(v, "predict"), "another package"),
    "on_error": (lambda v: v is None or callable(v), "a function"),
}


def check_export(**given: Any) -> None:
    """Raises ConfigError that lists all options of ``export`` that are not what they are."""
    _check(_EXPORT, given)


def check_verify(**given: Any) -> None:
    """As ``check_export``, of ``verify``."""
    _check(_VERIFY, given)


def _check(
    table: Mapping[str, tuple[Callable[[Any], bool], str]], given: Mapping[str, Any]
) -> None:
    wrong = [
        f"{name} is {said}; given {_shown(value)}"
        for name, value in given.items()
        if name in table and not (known := table[name])[0](value)
        for said in (known[1],)
    ]
    if wrong:
        raise ConfigError("; ".join(wrong))


def _shown(value: Any) -> str:
    """What was given, on one line."""
    if hasattr(value, "dtype"):
        return f"an array of {value.dtype}, {tuple(value.shape)}"
    return f"{' '.join(repr(value).split()):.60}"


def check_run_on(run_on: Any) -> None:
    """Raises PackageError for a place where nothing is run."""
    if run_on not in _RUN_ON:
        raise PackageError(f"run_on is one of {', '.join(_RUN_ON)}; given {_shown(run_on)}")


def names_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names that are given one by one or in a list. Raises ConfigError."""
    given: Any = (names,) if isinstance(names, str) else names
    found = tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(name, str) for name in found):
        raise ConfigError(f"names of inputs and outputs are words in a list; given {names!r}")
    return found


def sizes_of(size: int | Sequence[int] | None) -> list[int | None]:
    """Each once; None is the native one. Raises ConfigError."""
    several = isinstance(size, Sequence) and not isinstance(size, str)
    given: Any = size if several else [size]
    is_number = [isinstance(n, int) and not isinstance(n, bool) for n in given]
    if size is not None and not (is_number and all(is_number)):
        raise ConfigError(f"a size is a number of pixels, or a list of them; given {size!r}")
    return list(dict.fromkeys(given))


def number_in(path: Path, name: str, value: Any) -> float:
    """What a package, or one who runs it, calls ``name``. Raises PackageError for no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise PackageError(f"{path}: {name} is no number: {value!r:.60}") from None
