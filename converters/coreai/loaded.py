"""A saved ``.aimodel`` as an object that can be run, on any machine that has coreai-core."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ondevice.config import Preprocess
from ondevice.errors import ConfigError, PackageError, printable

from ..graph.graph import Array
from . import runtime
from .package import CUSTOM, FIELDS, HASH, METADATA, PROGRAM, SUFFIX
from .program import PIXELS
from .stored import StoredFunction, TensorType, Weight, parsed, stored_function

PREPROCESS_KEY, LABELS_KEY = "ondevice.preprocess", "ondevice.labels"
_WORDS = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


@dataclass(frozen=True)
class Feature:
    """An input or output as the package declares it."""

    name: str
    kind: str  # "image" or "array"
    shape: tuple[int, ...] = ()  # an image's is (height, width)
    dtype: str = ""  # an image's is its colour layout


def load(path: str | Path) -> Program:
    """Open a saved ``.aimodel``. Raises PackageError."""
    path = Path(path)
    parts = {name: path / name for name in (PROGRAM, HASH, METADATA)}
    if missing := [name for name, part in parts.items() if not part.is_file()]:
        raise PackageError(f"{path} is no {SUFFIX}: it has no {', '.join(missing)}")
    try:
        code, said = parts[PROGRAM].read_bytes(), parts[HASH].read_bytes()
        metadata = json.loads(parts[METADATA].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackageError(f"{path}: cannot read it: {printable(str(error))}") from error
    if hashlib.sha256(code).digest() != said:
        raise PackageError(f"{path}: {PROGRAM} is damaged, its SHA-256 is not that of {HASH}")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(CUSTOM, {}), dict):
        raise PackageError(f"{path}: {METADATA} is not a table of names and values")
    try:
        asset = runtime.open_asset(path, code)
        return Program(path, asset, metadata, runtime.read_functions(asset.program))
    except (RuntimeError, ValueError, KeyError) as error:
        raise PackageError(f"{path}: cannot read it: {printable(str(error))}") from error


class Program:
    """A saved ``.aimodel``: what it says of itself, and the same ``predict`` everywhere."""

    def __init__(
        self,
        path: Path,
        asset: Any,
        said: Mapping[str, Any],
        raw: Mapping[str, runtime.RawFunction],
    ) -> None:
        self.path, self.asset = path, asset
        self._said, self._raw = said, raw
        self._stored: dict[str, StoredFunction] = {}
        self._exposed: dict[str, tuple[runtime.Runner, list[str]]] = {}

    def __repr__(self) -> str:
        shapes = ", ".join(f"{f.name}: {f.kind}{list(f.shape)}" for f in self.inputs.values())
        return f"Program({str(self.path)!r}, {shapes})"

    # What the package says of itself.

    @cached_property
    def functions(self) -> list[str]:
        """All that can be called, but for what only stands in for another's image."""
        public = [name for name, f in self._raw.items() if not f.private]
        return sorted(
            n for n in public if n.removesuffix(PIXELS) == n or not self._has_image(n)
        )

    def _has_image(self, name: str) -> bool:
        return name.removesuffix(PIXELS) in self._raw

    @property
    def default_function(self) -> str:
        return "main" if "main" in self.functions else self.functions[0]

    @property
    def inputs(self) -> dict[str, Feature]:
        return self.features("input")

    @property
    def outputs(self) -> dict[str, Feature]:
        return self.features("output")

    def features(self, which: str, function: str | None = None) -> dict[str, Feature]:
        """The inputs (``which="input"``) or outputs of a function."""
        raw = self._raw[self._name(function)]
        declared = {
            "input": (raw.arguments, raw.argument_types),
            "output": (raw.results, raw.result_types),
        }
        pairs = zip(*declared[which], strict=True)
        return {name: _feature(name, parsed(text)) for name, text in pairs}

    @property
    def metadata(self) -> dict[str, str]:
        """Author, licence and description, then what the maker added."""
        standard = {k: str(self._said[k]) for k in FIELDS if self._said.get(k)}
        custom = self._said.get(CUSTOM, {})
        return standard | {
            k: v if isinstance(v, str) else json.dumps(v) for k, v in custom.items()
        }

    @cached_property
    def preprocess(self) -> Preprocess | None:
        """The embedded preprocessing contract, if there is one."""
        text = self.metadata.get(PREPROCESS_KEY)
        if text is None:
            return None
        try:
            return Preprocess.from_dict(json.loads(text))
        except (ValueError, AttributeError, ConfigError) as error:
            raise PackageError(f"{self.path}: bad {PREPROCESS_KEY}: {error}") from error

    @property
    def labels(self) -> tuple[str, ...]:
        """A classifier's classes in order."""
        try:
            return tuple(map(str, json.loads(self.metadata.get(LABELS_KEY, "[]"))))
        except (ValueError, TypeError) as error:
            raise PackageError(f"{self.path}: bad {LABELS_KEY}: {error}") from error

    @property
    def operations(self) -> list[str]:
        """The default function's operation types in order, constants aside."""
        return [op.type for op in self.stored().operations]

    @property
    def weights(self) -> dict[str, Weight]:
        """The default function's stored constants by name: format, shape and bytes."""
        return self.stored().weights

    def array(self, name: str, function: str | None = None) -> Array:
        """A weight's values, decompressed. Raises PackageError if there is no such weight."""
        try:
            return self.stored(function).array(name)
        except PackageError as error:
            raise PackageError(f"{self.path}: {error}") from error

    def stored(self, function: str | None = None) -> StoredFunction:
        """A function as written; of one that takes an image, what is done with its pixels."""
        name = self._computed_by(self._name(function))
        if name not in self._stored:
            composites = {n: f.composite for n, f in self._raw.items() if f.composite}
            self._stored[name] = stored_function(self._raw[name], composites)
        return self._stored[name]

    def _name(self, function: str | None) -> str:
        name = function or self.default_function
        if name not in self._raw or self._raw[name].private:
            known = ", ".join(self.functions)
            raise PackageError(f"{self.path}: no function {name!r}; it has {known}")
        return name

    def _computed_by(self, name: str) -> str:
        """The function that takes as an array what ``name`` takes as an image, if it does."""
        return name + PIXELS if name + PIXELS in self._raw else name

    # Running it.

    @cached_property
    def runner(self) -> runtime.Runner:
        return runtime.Runner(self.asset)

    def predict(
        self, inputs: Mapping[str, Any], *, function: str | None = None
    ) -> dict[str, Array]:
        """Outputs by name: arrays, floats as float32.

        An image input takes pixels of exactly its size: a PIL image, or uint8 levels (height,
        width, 3). Where there is no Core Video, on Linux, the same function is run that the
        image's pixels go to, which is all but the reading of the image. Raises PackageError.
        """
        name = self._name(function)
        features = self._checked(inputs, name)
        if sys.platform != "darwin":
            given = self._arrays(inputs, name)
            name = self._computed_by(name)
        else:
            given = {n: self._given(features[n], value) for n, value in inputs.items()}
        try:
            values = self.runner.call(name, given)
        except (RuntimeError, TypeError) as error:
            raise PackageError(f"{self.path}: coreai-core cannot run it: {error}") from error
        return {n: _plain(values[n]) for n in self.features("output", name)}

    def walk(
        self, inputs: Mapping[str, Any], *, function: str | None = None
    ) -> Iterator[tuple[str, Array]]:
        """Every value that was given a name, with that name, in order."""
        name = self._name(function)
        given = self._arrays(inputs, name)
        name = self._computed_by(name)
        if name not in self._exposed:
            self._exposed[name] = runtime.exposed(self.asset, name)
        runner, order = self._exposed[name]
        values = runner.call(name, given)
        yield from ((value, _plain(values[value])) for value in order)

    def _checked(self, inputs: Mapping[str, Any], function: str) -> dict[str, Feature]:
        features = self.features("input", function)
        if inputs.keys() != features.keys():
            given = ", ".join(inputs) or "nothing"
            raise PackageError(f"{self.path}: takes {', '.join(features)}; given {given}")
        return features

    def _arrays(self, inputs: Mapping[str, Any], function: str) -> dict[str, Array]:
        """What the function of arrays is given for what ``function`` takes."""
        features = self._checked(inputs, function)
        wanted = self.features("input", self._computed_by(function))
        given = {}
        for name, value in inputs.items():
            if features[name].kind == "image":
                pixels = self._pixels(features[name], value)
                value = pixels.transpose(2, 0, 1)[None]
            given[name] = self._array(wanted[name], value)
        return given

    def _given(self, feature: Feature, value: Any) -> Any:
        if feature.kind == "image":
            return Image.fromarray(self._pixels(feature, value))
        return self._array(feature, value)

    def _array(self, feature: Feature, value: Any) -> Array:
        if isinstance(value, Image.Image):
            raise PackageError(f"{self.path}: input {feature.name!r} is an array, not an image")
        array = np.asarray(value)
        if array.shape != feature.shape:
            raise PackageError(
                f"{self.path}: input {feature.name!r} has shape {list(feature.shape)}; "
                f"given {list(array.shape)}"
            )
        return np.ascontiguousarray(array.astype(feature.dtype))

    def _pixels(self, feature: Feature, value: Any) -> Array:
        """The image of exactly the declared size, as uint8 (height, width, 3)."""
        pixels = np.asarray(value.convert("RGB") if isinstance(value, Image.Image) else value)
        if pixels.dtype != np.uint8:
            raise PackageError(f"{self.path}: image pixels are uint8; given {pixels.dtype}")
        if pixels.shape != (*feature.shape, 3):
            raise PackageError(
                f"{self.path}: input {feature.name!r} is an image of shape "
                f"{[*feature.shape, 3]}; given {list(pixels.shape)}"
            )
        return pixels


def _feature(name: str, kind: TensorType) -> Feature:
    if kind.dtype == "RGB":
        return Feature(name, "image", kind.shape, kind.dtype)
    return Feature(name, "array", kind.shape, _WORDS.get(kind.dtype, kind.dtype))


def _plain(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.kind == "f" else value
