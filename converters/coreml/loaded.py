"""A saved package as an object that can be run, on any machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ondevice.config import Preprocess
from ondevice.errors import ConfigError, PackageError

from .reader import SavedPackage, open_package, quiet
from .reference.plan import Plan, compile_function, stored_constants
from .reference.registry import Array
from .stored import StoredFunction, Weight, stored_function

Backend = Literal["auto", "reference", "coreml"]
PREPROCESS_KEY = "ondevice.preprocess"
INPUT_KEY = "ondevice.input"
LABELS_KEY = "ondevice.labels"


@dataclass(frozen=True)
class Feature:
    """An input or output as the package declares it."""

    name: str
    kind: str  # "image", "array", "string", "dictionary", …
    shape: tuple[int, ...] = ()  # an image's is (height, width)
    dtype: str = ""  # an image's is its colour layout


_ARRAY_TYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}
_COLOURS = {10: "grayscale", 20: "RGB", 30: "BGR", 40: "grayscale_float16"}
_EIGHT_BITS = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F"})
_PIL_MODES = {"RGB": "RGB", "BGR": "RGB", "grayscale": "L", "grayscale_float16": "F"}


def load_package(path: str | Path) -> Package:
    """Open a saved ``.mlpackage``. Raises PackageError."""
    return Package(open_package(path))


class Package:
    """A saved ``.mlpackage``: what it says of itself, and the same ``predict`` everywhere."""

    def __init__(self, saved: SavedPackage, *, compute_units: str = "ALL") -> None:
        """``compute_units``, as coremltools calls them, are for the Core ML backend."""
        self.saved, self.compute_units = saved, compute_units
        self.path = saved.path
        self._plans: dict[str, Plan] = {}
        self._models: dict[str, Any] = {}
        self._constants: dict[str, dict[str, Any]] = {}
        self._stored: dict[str, StoredFunction] = {}

    def __repr__(self) -> str:
        shapes = ", ".join(f"{f.name}: {f.kind}{list(f.shape)}" for f in self.inputs.values())
        return f"Package({str(self.path)!r}, {shapes})"

    # What the package says of itself.

    @property
    def functions(self) -> list[str]:
        return sorted(self.saved.spec.mlProgram.functions)

    @property
    def default_function(self) -> str:
        return self.saved.spec.description.defaultFunctionName or "main"

    @property
    def inputs(self) -> dict[str, Feature]:
        return self.features("input")

    @property
    def outputs(self) -> dict[str, Feature]:
        return self.features("output")

    def features(self, which: str, function: str | None = None) -> dict[str, Feature]:
        """The inputs (``which="input"``) or outputs of a function."""
        name = self._function_name(function)
        description = self.saved.spec.description
        several = {f.name: f for f in description.functions}
        declared = getattr(several.get(name, description), which)
        return {f.name: _feature(f) for f in declared}

    @property
    def metadata(self) -> dict[str, str]:
        """Author, licence, description and version, then what the maker added."""
        said = self.saved.spec.description.metadata
        fields = ("author", "license", "shortDescription", "versionString")
        standard = {name: getattr(said, name) for name in fields if getattr(said, name)}
        return standard | dict(said.userDefined)

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

    def as_picture(self, feature: Feature) -> Feature:
        """An array that the contract makes of a picture, as that picture; else ``feature``."""
        made = self.metadata.get(INPUT_KEY) == "array" and self.preprocess is not None
        if made and feature.kind == "array" and feature.shape[:-2] == (1, 3):
            return Feature(feature.name, "image", feature.shape[-2:], "RGB")
        return feature

    @property
    def labels(self) -> tuple[str, ...]:
        """A classifier's classes in order; of several functions what the metadata say."""
        operations = self.program.functions[self.default_function].operations
        found = [op.classes.val for op in operations if op.op_type == "classify"]
        if found:
            return tuple(map(str, found[0]))
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
        """The default function's stored constants by MIL name: format, shape and bytes."""
        return self.stored().weights

    def array(self, name: str, function: str | None = None) -> Array:
        """A weight's values, decompressed. Raises PackageError if there is no such weight."""
        function = self._function_name(function)
        if function not in self._constants:
            operations = self.program.functions[function].operations
            self._constants[function] = stored_constants(operations)
        if name not in self._constants[function]:
            raise PackageError(f"{self.path}: no weight {name!r}")
        return np.asarray(self._constants[function][name])

    def stored(self, function: str | None = None) -> StoredFunction:
        """A function as written, whether or not it can be run here."""
        name = self._function_name(function)
        if name not in self._stored:
            self._stored[name] = stored_function(self.saved, name)
        return self._stored[name]

    def _function_name(self, function: str | None) -> str:
        name = function or self.default_function
        if name not in self.saved.spec.mlProgram.functions:
            known = ", ".join(self.functions)
            raise PackageError(f"{self.path}: no function {name!r}; it has {known}")
        return name

    # Running it.

    @cached_property
    def program(self) -> Any:
        """The MIL program as coremltools' own objects."""
        return self.saved.program()

    def plan(self, function: str | None = None) -> Plan:
        name = self._function_name(function)
        if name not in self._plans:
            stored = self.program.functions[name]
            try:
                self._plans[name] = compile_function(stored)
            except PackageError as error:
                raise PackageError(f"{self.path}: {error}") from error
        return self._plans[name]

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        backend: Backend = "reference",
        function: str | None = None,
    ) -> dict[str, Any]:
        """Outputs by name: arrays (floats as float32), a label, or a dictionary of scores.

        An image input takes pixels of exactly its size, as Core ML does: a PIL image, a path to
        one, or uint8 levels (height, width, 3). Nothing is resized or cropped; of a photo of
        any size ``resize_and_crop(photo)`` makes them. So does an array that stands for an
        image; it takes the normalized numbers as well. ``"auto"`` is Core ML on macOS and the
        reference elsewhere. Raises PackageError.
        """
        if backend == "coreml" and sys.platform != "darwin":
            raise PackageError("backend='coreml' needs macOS; use backend='reference' here")
        if backend == "coreml" or (backend == "auto" and sys.platform == "darwin"):
            return self._predict_with_coreml(inputs, self._function_name(function))
        values = self._run(inputs, None, function)
        return {name: values[name] for name in self.features("output", function)}

    def resize_and_crop(self, photo: Any, *, function: str | None = None) -> Array:
        """A photo (PIL image, path, levels) as the levels that ``predict`` takes: uint8
        (height, width, 3), by the preprocessing contract in the package.

        ``function`` is that which is called, of several. Raises ImageError for a photo that
        cannot be read, PackageError if the package has no contract or not one image input.
        """
        from ondevice.image.preprocess import resize_and_crop

        features = map(self.as_picture, self.features("input", function).values())
        sizes = [f.shape for f in features if f.kind == "image"]
        if self.preprocess is None or len(sizes) != 1:
            raise PackageError(
                f"{self.path}: has no preprocessing contract of one image; give predict pixels "
                "of the size that the input has"
            )
        return resize_and_crop(photo, replace(self.preprocess, size=sizes[0][0]))

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        keep: bool | Collection[str] | Callable[[str], bool] = True,
        function: str | None = None,
    ) -> dict[str, Any]:
        """Outputs and intermediate values by MIL name, from the reference.

        ``keep`` selects the intermediate values: all, none, names, or a test of the name.
        """
        if isinstance(keep, bool):
            wanted: Callable[[str], bool] | None = (lambda name: True) if keep else None
        else:
            wanted = keep if callable(keep) else set(keep).__contains__
        return self._run(inputs, wanted, function)

    def walk(
        self, inputs: Mapping[str, Any], *, function: str | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Every value that the reference computes, with its MIL name, in order."""
        yield from self.plan(function).walk(self._arrays(inputs, function))

    def _run(
        self,
        inputs: Mapping[str, Any],
        keep: Callable[[str], bool] | None,
        function: str | None,
    ) -> dict[str, Any]:
        arrays = self._arrays(inputs, function)
        return self._named(self.plan(function).run(arrays, keep), function)

    def _arrays(self, inputs: Mapping[str, Any], function: str | None) -> dict[str, Array]:
        features = self._checked(inputs, function)
        return {n: self._array(features[n], value) for n, value in inputs.items()}

    def _named(self, values: dict[str, Any], function: str | None) -> dict[str, Any]:
        """A classifier's outputs are known outside by other names than in the program."""
        plan, declared = self.plan(function), self.features("output", function)
        missing = [name for name in declared if name not in values]
        spare = [name for name in plan.outputs if name not in declared]
        return values | dict(zip(missing, (values[n] for n in spare), strict=False))

    def _checked(self, inputs: Mapping[str, Any], function: str | None) -> dict[str, Feature]:
        features = self.features("input", function)
        if inputs.keys() != features.keys():
            given = ", ".join(inputs) or "nothing"
            raise PackageError(f"{self.path}: takes {', '.join(features)}; given {given}")
        return features

    def _array(self, feature: Feature, value: Any) -> Array:
        if feature.kind == "image":
            return _planes(self._pixels(feature, value), feature)
        picture = self.as_picture(feature)
        if picture is not feature and _is_picture(value):
            return _planes(self._normalized(self._pixels(picture, value)), picture)
        if isinstance(value, Image.Image):
            raise PackageError(f"{self.path}: input {feature.name!r} is an array, not an image")
        array = np.asarray(value)
        if feature.shape and array.shape != feature.shape:
            raise PackageError(
                f"{self.path}: input {feature.name!r} has shape {list(feature.shape)}; "
                f"given {list(array.shape)}"
            )
        return array.astype("int32" if feature.dtype == "int32" else "float32")

    def _pixels(self, feature: Feature, value: Any) -> Array:
        """The image of exactly the declared size, as uint8 (height, width, channels)."""
        mode = _PIL_MODES[feature.dtype]
        pixels = value if isinstance(value, np.ndarray) else _as_mode(value, mode)
        if pixels.dtype != np.uint8 and mode != "F":
            raise PackageError(f"{self.path}: image pixels are uint8; given {pixels.dtype}")
        wanted = feature.shape + ((3,) if mode == "RGB" else ())
        if pixels.shape != wanted:
            raise PackageError(
                f"{self.path}: input {feature.name!r} is an image of shape {list(wanted)}; "
                f"given {list(pixels.shape)}; resize_and_crop(photo) makes it of a photo"
            )
        return pixels

    def _normalized(self, levels: Array) -> Array:
        """Levels (height, width, 3) as the numbers of the contract."""
        import mlx.core as mx

        from ondevice.image.preprocess import normalize

        assert self.preprocess is not None  # see as_picture
        return np.array(normalize(mx.array(levels), self.preprocess))

    def _predict_with_coreml(self, inputs: Mapping[str, Any], function: str) -> dict[str, Any]:
        features = self._checked(inputs, function)
        given = {
            name: Image.fromarray(self._pixels(features[name], value))
            if features[name].kind == "image"
            else self._array(features[name], value)
            for name, value in inputs.items()
        }
        results: dict[str, Any] = self.core_ml_model(function).predict(given)
        return {name: _plain(value) for name, value in results.items()}

    def core_ml_model(self, function: str | None = None) -> Any:
        """coremltools' ``MLModel``, loaded by Core ML: on macOS only."""
        name = self._function_name(function)
        if name not in self._models:
            self._models[name] = self._loaded_by_core_ml(name)
        return self._models[name]

    def _loaded_by_core_ml(self, function: str) -> Any:
        with quiet():
            import coremltools as ct

            several = {"function_name": function} if len(self.functions) > 1 else {}
            units = ct.ComputeUnit[self.compute_units]
            return ct.models.MLModel(str(self.path), compute_units=units, **several)


def _feature(declared: Any) -> Feature:
    kind = declared.type.WhichOneof("Type")
    if kind == "imageType":
        image = declared.type.imageType
        layout = _COLOURS.get(image.colorSpace, "RGB")
        return Feature(declared.name, "image", (image.height, image.width), layout)
    if kind == "multiArrayType":
        array = declared.type.multiArrayType
        dtype = _ARRAY_TYPES.get(array.dataType, str(array.dataType))
        return Feature(declared.name, "array", tuple(array.shape), dtype)
    return Feature(declared.name, (kind or "unknown").removesuffix("Type"))


def _is_picture(value: Any) -> bool:
    """A photo, a path, a file or levels, rather than normalized numbers."""
    return isinstance(value, Image.Image) or np.asarray(value).dtype.kind in "UOu"


def _as_mode(image: Any, mode: str) -> Array:
    """The pixels of a PIL image as they lie there, of a file as they are shown."""
    from ondevice.image.open import as_rgb, open_image

    if not isinstance(image, Image.Image):
        image = open_image(image)
    elif image.mode not in _EIGHT_BITS:
        image = as_rgb(image)
    return np.asarray(image.convert(mode))


def _planes(pixels: Array, feature: Feature) -> Array:
    """(height, width, channels) to the program's (1, channels, height, width)."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    planes = planes[..., ::-1] if feature.dtype == "BGR" else planes
    return np.ascontiguousarray(planes.transpose(2, 0, 1)[None], np.float32)


def _plain(value: Any) -> Any:
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(np.float32) if is_float else value
