"""What is to be written where: checked before any work, and then all of it or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ondevice.errors import ConfigError
from ondevice.signature import OBJECTS, Output
from ondevice.weights.output import replacing

from ..backend import BACKENDS, COMPILED, Backend, Settings, backend_of, load_package
from ..compress.plan import Request
from ..function import (
    Function,
    labels_beside,
    without_labels,
)
from ..function.golden import golden_of, reserve
from ..program.options import check_export
from .build import Format, build_all

if TYPE_CHECKING:
    from . import Options


_LISTED = 3  # weights, of those that are no numbers


class Job:
    """Where to write what, in which formats: checked before any work."""

    def __init__(self, path: str | Path, options: Options, functions: int = 1) -> None:
        """Raises ConfigError that lists everything impossible."""
        check_export(path=path, **options)
        given: dict[str, Any] = dict(options)
        self.force = given.pop("force", False)
        self.timed = given.pop("timed", lambda path, seconds: None)
        self.golden = given.pop("golden", True)
        also = given.pop("also", ())
        also = [also] if isinstance(also, str | Path) else [*also]
        backends = _backends([path, *also])
        known = {f.name for b in backends.values() for f in fields(b.settings)}
        chosen = {name: given.pop(name) for name in known & given.keys()}
        asked = {f.name for f in fields(Request) if f.init}
        if unknown := sorted(given.keys() - asked):
            names = " and ".join(b.name for b in backends.values())
            raise ConfigError(
                f"no option {', '.join(unknown)} of {names}; there are "
                f"{', '.join(sorted(known | asked | {'also', 'force', 'golden'}))}"
            )
        self.formats = [Format(p, b, _settings(b, chosen)) for p, b in backends.items()]
        problems = (p for f in self.formats for p in f.settings.problems(functions))
        if listed := list(dict.fromkeys(problems)):
            raise ConfigError("; ".join(listed))
        self.request = Request(**given)

    def write(self, functions: Mapping[str, Function], metadata: Mapping[str, str]) -> Path:
        """The first package's path. One function becomes a package, several share one.

        All packages are there in the end, or none. Raises ConfigError for outputs that cannot
        be in such packages, or weights that are no numbers.
        """
        for function in functions.values():
            _check_numbers(function)
        if listed := list(dict.fromkeys(_object_problems(self.formats, functions))):
            raise ConfigError(f"{OBJECTS} are for Apple's Vision: {'; '.join(listed)}")
        with ExitStack() as stack:
            partial = [
                stack.enter_context(
                    replacing(f.path, force=self.force, marker=f.backend.marker)
                )
                for f in self.formats
            ]
            paths = [f.path for f in self.formats] if self.golden else []
            first = next(iter(functions.values()))
            beside = reserve(stack, first, paths, force=self.force)
            said = dict(metadata)
            if len(functions) > 1:  # none can be a classifier: the labels stand beside
                said |= labels_beside(functions)
                functions = {name: without_labels(f) for name, f in functions.items()}
            built = {n: build_all(f, self.formats, self.request) for n, f in functions.items()}
            for i, (form, path) in enumerate(zip(self.formats, partial, strict=True)):
                parts = {name: found[i] for name, found in built.items()}
                start = time.perf_counter()
                form.backend.save(parts, path, said | form.versions)
                seconds = sum(part.seconds for part in parts.values())
                self.timed(form.path, seconds + time.perf_counter() - start)
            for i, path in beside.items():
                golden_of(first, load_package(partial[i])).write(path)
        return self.formats[0].path


def _check_numbers(function: Function) -> None:
    """Raises ConfigError for weights with NaN, of which everything after them becomes NaN."""
    weights: dict[str, mx.array] = dict(tree_flatten(function.model.parameters()))
    floats = {k: v for k, v in weights.items() if mx.issubdtype(v.dtype, mx.floating)}
    found = {k: mx.any(mx.isnan(v)) for k, v in floats.items()}
    mx.eval(found)
    if bad := [k for k, is_nan in found.items() if is_nan.item()]:
        more = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise ConfigError(
            f"{function.signature.model} has NaN in {', '.join(bad[:_LISTED])}{more}: train it "
            "again, or load other weights"
        )


def _object_problems(
    formats: Iterable[Format], functions: Mapping[str, Function]
) -> Iterator[str]:
    """What keeps packages that are to give objects from ending in the stage that does."""
    asked = [f for f in functions.values() if any(map(_is_of_objects, f.signature.outputs))]
    others = [str(f.path) for f in formats if not f.backend.has_objects]
    if asked and others:
        yield f"{', '.join(others)} cannot give them: a .mlpackage can"
    if asked and len(functions) > 1:
        yield "a package of several functions cannot give them: export one by one"
    for function in asked:
        outputs, model = function.signature.outputs, function.signature.model
        if len(outputs) != 2 or not all(map(_is_of_objects, outputs)):
            yield f"they come alone; asked for {', '.join(function.output_names)}"
        if function.io_dtype:
            yield "it gives an image, and no array"
        if not function.signature.labels:
            yield f"it shows labels, and {model} has none"


def _is_of_objects(output: Output) -> bool:
    return output.group == OBJECTS


def _backends(paths: Iterable[str | Path]) -> dict[Path, Backend]:
    """The back end of each path. Raises ConfigError for two packages of one format, and for
    one inside another package, which would be broken."""
    found: dict[Path, Backend] = {}
    for path in map(Path, paths):
        around = [p for p in path.absolute().parents if p.suffix in {*BACKENDS, *COMPILED}]
        if around:
            raise ConfigError(f"{path} lies inside the package {around[0]}: give another path")
        if path.suffix in {known.suffix for known in found}:
            raise ConfigError(f"{path}: another {path.suffix} is written already; give one")
        found[path] = backend_of(path)
    return found


def _settings(backend: Backend, chosen: Mapping[str, Any]) -> Settings:
    own = {f.name for f in fields(backend.settings)}
    return backend.settings(**{k: v for k, v in chosen.items() if k in own})
