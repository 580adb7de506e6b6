"""A back end is one value: how a format is written, opened, run and looked into.

``export``, ``verify`` and ``inspect`` know formats through ``Backend`` and ``Program`` alone. A
new one is a folder with a ``BACKEND`` and a row in ``BACKENDS``.
"""

from __future__ import annotations

import logging
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.errors import ConfigError, PackageError

from .compress.storage import Storage
from .graph.passes.switches import ATTENTION, GELU, Switch
from .program.options import PATH, is_path

if TYPE_CHECKING:
    from .compress.forms import Form
    from .function import Function
    from .graph.graph import Graph
    from .program import Program

# The module of each format, by the suffix of its packages. It has a ``BACKEND``.
BACKENDS = {
    ".mlpackage": "converters.coreml.backend",
    ".aimodel": "converters.coreai.backend",
}
COMPILED = {".mlmodelc": ".mlpackage"}  # what a device makes of a package
PRECISIONS = ("float16", "float32")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``precision`` is that of weights and computed values; ``attention`` and ``gelu`` are
    forms whose speed depends on the chip, and are named in ``passes/switches.py``."""

    precision: str = "float16"
    attention: str = "matmul"
    gelu: str = "exact"

    @property
    def choices(self) -> Mapping[str, tuple[str, ...]]:
        """What each setting may be."""
        return {
            "precision": PRECISIONS,
            "attention": tuple(ATTENTION),
            "gelu": tuple(GELU),
        }

    def problems(self, functions: int = 1) -> list[str]:
        """What is impossible about it, in words, for a package of so many functions."""
        return [
            f"no {name} {getattr(self, name)!r}; there are {', '.join(known)}"
            for name, known in self.choices.items()
            if getattr(self, name) not in known
        ]

    @property
    def storage(self) -> Storage:
        """What compressed forms the package can hold: all, unless a back end says less."""
        return Storage()

    @property
    def before(self) -> tuple[Switch, ...]:
        """Passes to run before the layout."""
        return GELU[self.gelu].before + ATTENTION[self.attention].before

    @property
    def after(self) -> tuple[Switch, ...]:
        """Passes to run after it."""
        return ATTENTION[self.attention].after


@dataclass(frozen=True)
class Part:
    """One function of a package that is about to be saved, as its back end has built it in
    so many ``seconds``."""

    function: Function
    built: Any
    metadata: Mapping[str, str]
    seconds: float = 0.0


@dataclass(frozen=True)
class Backend:
    """A format of packages.

    ``check(graph)`` raises UnsupportedOpError that lists all operations that it cannot hold.
    ``build(graph, function, settings, forms)`` makes a package in memory of a physical,
    typed graph whose constants ``forms`` are stored compressed; ``size_of(built)`` is what it
    would take on disk. ``save(parts, path, metadata)`` writes one function, or several by
    name, the default first. ``load(path)`` opens what ``save`` wrote, and whatever else has
    the ``suffix``; it raises PackageError. ``marker`` is the file that tells such a folder
    from others. ``names(inputs, outputs)`` gives the names as the format can have them.
    ``has_objects`` says whether packages can end in a stage that suppresses boxes, as Apple's
    Vision asks for.
    """

    name: str
    suffix: str
    marker: str
    settings: type[Settings]
    check: Callable[[Graph], None]
    build: Callable[[Graph, Function, Settings, Mapping[str, Form]], Any]
    size_of: Callable[[Any], int]
    save: Callable[[Mapping[str, Part], Path, Mapping[str, str]], None]
    load: Callable[[Path], Program]
    names: Callable[[Sequence[str], Sequence[str]], tuple[list[str], list[str]]]
    has_objects: bool = False
    distributions: tuple[str, ...] = ()  # whose versions a package names

    @property
    def versions(self) -> dict[str, str]:
        """Of all that has a part in the values of a package."""
        used = ("ondevice", "mlx", *self.distributions, "numpy")
        found = {name: version(name) for name in used}
        return found | {"python": platform.python_version()}


def backend_of(path: str | Path) -> Backend:
    """The back end of a path, by its suffix. Raises ConfigError."""
    path = Path(path)
    if path.suffix not in BACKENDS:
        raise ConfigError(f"{path} does not end in {' or '.join(BACKENDS)}")
    found: Backend = import_module(BACKENDS[path.suffix]).BACKEND
    return found


def load_package(path: str | Path) -> Program:
    """Open a saved package, anybody's. Raises PackageError."""
    if not is_path(path):
        raise PackageError(f"a package is opened by {PATH}; given {path!r:.60}")
    path = Path(path)
    if path.suffix in COMPILED:
        raise PackageError(
            f"{path}: is a compiled model; open the {COMPILED[path.suffix]} it came from"
        )
    if path.suffix not in BACKENDS:
        known = " or ".join(BACKENDS)
        raise PackageError(f"{path}: does not end in {known}, so it is no package known here")
    return backend_of(path).load(path)


def own_names(
    inputs: Sequence[str], outputs: Sequence[str], rename: Callable[[str], str], takes: str
) -> tuple[list[str], list[str]]:
    """The names as ``rename`` makes them for a format; a changed one is said in a warning,
    with what the format ``takes``.

    Raises ConfigError that lists every empty name, and those that would be the same.
    """
    names = [*inputs, *outputs]
    made = [rename(name) for name in names]
    count = Counter(made)
    problems = ["an input or output without a name"] if "" in names else []
    for name in dict.fromkeys(m for m in made if m and count[m] > 1):
        same = [repr(n) for n, m in zip(names, made, strict=True) if m == name]
        problems.append(f"{', '.join(same)} would all be called {name!r}")
    if problems:
        raise ConfigError(
            f"{'; '.join(problems)}: each input and output needs its own name; give "
            "input_names or output_names"
        )
    for name, new in zip(names, made, strict=True):
        if name != new:
            logging.getLogger("converters").warning(
                "%r is called %r in the package: %s", name, new, takes
            )
    return made[: len(inputs)], made[len(inputs) :]
