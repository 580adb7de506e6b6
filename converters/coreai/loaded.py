"""A saved ``.aimodel`` as an object that can be run, on any machine that has coreai-core."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ondevice.errors import PackageError, printable

from ..backend import Settings
from ..graph.graph import Array
from ..program import Device, Feature, Finding, Program, RunOn
from ..program.options import check_run_on
from . import runtime
from .authoring import PROGRAM
from .package import CUSTOM, FIELDS, HASH, METADATA, SUFFIX
from .program import PIXELS
from .stored import DATA_MOVING, StoredFunction, TensorType, parsed, stored_function

T = TypeVar("T")
_WORDS = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


def load(path: str | Path) -> Package:
    """Open a saved ``.aimodel``. Raises PackageError."""
    path = Path(path)
    if not path.exists():
        raise PackageError(f"{path}: no such package")
    parts = {name: path / name for name in (PROGRAM, HASH, METADATA)}
    if missing := [name for name, part in parts.items() if not part.is_file()]:
        raise PackageError(f"{path} is no {SUFFIX}: it has no {', '.join(missing)}")
    if links := [name for name, part in parts.items() if part.is_symlink()]:
        raise PackageError(
            f"{path}: {', '.join(links)} is a link; copy the file into the package"
        )
    try:
        code, said = parts[PROGRAM].read_bytes(), parts[HASH].read_bytes()
        metadata = json.loads(parts[METADATA].read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PackageError(f"{path}: cannot read it: {printable(str(error))}") from error
    if hashlib.sha256(code).digest() != said:
        raise PackageError(f"{path}: {PROGRAM} is damaged, its SHA-256 is not that of {HASH}")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(CUSTOM, {}), dict):
        raise PackageError(f"{path}: {METADATA} is not a table of names and values")
    try:
        asset = runtime.open_asset(path, code)
        return Package(path, asset, metadata, runtime.read_functions(asset.program))
    except (RuntimeError, ValueError, KeyError) as error:
        raise PackageError(f"{path}: cannot read it: {printable(str(error))}") from error


class Package(Program):
    """A saved ``.aimodel``, run by Apple's own runtime: on the CPU, or by macOS on a Mac."""

    setting_names = tuple(f.name for f in fields(Settings))

    def __init__(
        self,
        path: Path,
        asset: Any,
        said: Mapping[str, Any],
        raw: Mapping[str, runtime.RawFunction],
    ) -> None:
        self.path, self.asset = path, asset
        self._written, self._raw = said, raw
        self._stored: dict[str, StoredFunction] = {}
        self._exposed: dict[str, tuple[runtime.Runner, list[str]]] = {}

    # What the package says of itself.

    @cached_property
    def functions(self) -> list[str]:
        """All that can be called, but for what only stands in for another's image."""
        public = [name for name, f in self._raw.items() if not f.private]
        return [n for n in public if not (n.endswith(PIXELS) and n[: -len(PIXELS)] in public)]

    @property
    def default_function(self) -> str:
        first = "main" if "main" in self.functions else self.functions[0]
        return self.selected or first

    def features(self, which: str, function: str | None = None) -> dict[str, Feature]:
        return self._features(which, self.named_function(function))

    def _features(self, which: str, name: str) -> dict[str, Feature]:
        raw = self._raw[name]
        declared = {
            "input": (raw.arguments, raw.argument_types),
            "output": (raw.results, raw.result_types),
        }
        pairs = zip(*declared[which], strict=True)
        return {name: _feature(name, parsed(text)) for name, text in pairs}

    @property
    def metadata(self) -> dict[str, str]:
        standard = {k: str(self._written[k]) for k in FIELDS if self._written.get(k)}
        custom = self._written.get(CUSTOM, {})
        return standard | {
            k: v if isinstance(v, str) else json.dumps(v) for k, v in custom.items()
        }

    @property
    def system(self) -> str:
        return "iOS27"

    def caveats(self) -> Sequence[str]:
        images = [name for name, f in self.inputs.items() if f.kind == "image"]
        if not images or sys.platform == "darwin":
            return ()
        return (
            f"{', '.join(images)}: only macOS can hand an image to Core AI; what ran here is "
            "the function that the image's pixels go to, which is all but its reading",
        )

    # What it holds.

    def stored(self, function: str | None = None) -> StoredFunction:
        """A function as written; of one that takes an image, what is done with its pixels."""
        name = self._computed_by(self.named_function(function))
        if name not in self._stored:
            composites = {n: f.composite for n, f in self._raw.items() if f.composite}
            self._stored[name] = stored_function(self._raw[name], composites)
        return self._stored[name]

    def results(self) -> Sequence[str]:
        return self.stored().results

    @property
    def data_moving(self) -> frozenset[str]:
        return DATA_MOVING

    def findings(self, function: str | None = None) -> Sequence[Finding]:
        from .lint import lint

        return lint(self.stored(function))

    def array(self, name: str, function: str | None = None) -> Array:
        try:
            return self.stored(function).array(name)
        except PackageError as error:
            raise PackageError(f"{self.path}: {error}") from error

    def _computed_by(self, name: str) -> str:
        """The function that takes as an array what ``name`` takes as an image, if it does."""
        return name + PIXELS if name + PIXELS in self._raw else name

    # Running it.

    @cached_property
    def runner(self) -> runtime.Runner:
        return self._runnable(lambda: runtime.Runner(self.asset))

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        run_on: RunOn = "reference",
        function: str | None = None,
    ) -> dict[str, Any]:
        """As ``Program.predict``. ``"reference"`` calls the function that takes an image's
        pixels as an array, ``"device"`` on macOS the one that takes the image."""
        name = self.named_function(function)
        check_run_on(run_on)
        if run_on == "device" and sys.platform != "darwin":
            raise PackageError("run_on='device' is Core AI on macOS; here it is 'reference'")
        if run_on == "reference" or sys.platform != "darwin":
            given, called = self._arrays(inputs, name), self._computed_by(name)
        else:
            given, called = self._images(inputs, name), name
        runner = self.runner
        values = self._runnable(lambda: runner.call(called, given))
        return {n: _plain(values[n]) for n in self.features("output", name)}

    def devices(self) -> Sequence[Device]:
        return [Device("Core AI", self)] if sys.platform == "darwin" else ()

    def walk(
        self, inputs: Mapping[str, Any], *, function: str | None = None
    ) -> Iterator[tuple[str, Array]]:
        """Every value that was given a name, with that name, in order."""
        name = self.named_function(function)
        given, name = self._arrays(inputs, name), self._computed_by(name)
        if name not in self._exposed:
            self._exposed[name] = self._runnable(lambda: runtime.exposed(self.asset, name))
        runner, order = self._exposed[name]
        values = self._runnable(lambda: runner.call(name, given))
        yield from ((value, _plain(values[value])) for value in order)

    def _runnable(self, make: Callable[[], T]) -> T:
        """What ``make`` gives; raises PackageError for what coreai-core says of the program."""
        try:
            return make()
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            text = printable(str(error).partition("\n")[0])
            raise PackageError(f"{self.path}: coreai-core cannot run it: {text}") from error

    def _arrays(self, inputs: Mapping[str, Any], function: str) -> dict[str, Array]:
        """What the function of arrays is given for what ``function`` takes."""
        wanted = self._features("input", self._computed_by(function))
        return {
            name: self._typed(wanted[name], array)
            for name, array in self.given(inputs, function).items()
        }

    def _typed(self, feature: Feature, array: Array) -> Array:
        if feature.kind == "image":
            raise PackageError(
                f"{self.path}: input {feature.name!r} is an image, which only macOS can hand "
                "to Core AI, and no function of the package takes its pixels as an array"
            )
        try:
            return np.ascontiguousarray(array.astype(feature.dtype))
        except TypeError as error:
            raise PackageError(
                f"{self.path}: input {feature.name!r} is of a type that NumPy has not: "
                f"{feature.dtype}"
            ) from error

    def _images(self, inputs: Mapping[str, Any], function: str) -> dict[str, Any]:
        """What ``function`` itself is given: Pillow's images."""
        arrays = self._arrays(inputs, function)
        return {
            name: Image.fromarray(self.pixels(feature, inputs[name]))
            if feature.kind == "image"
            else arrays[name]
            for name, feature in self.features("input", function).items()
        }


def _feature(name: str, kind: TensorType) -> Feature:
    if kind.dtype == "RGB":
        return Feature(name, "image", kind.shape, kind.dtype)
    return Feature(name, "array", kind.shape, _WORDS.get(kind.dtype, kind.dtype))


def _plain(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.kind == "f" else value
