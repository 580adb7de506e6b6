"""A saved package of any format: what it says of itself, what it holds, what it computes."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from PIL import Image

from ondevice.config import Preprocess
from ondevice.errors import ConfigError, PackageError
from ondevice.signature import Input, Output, Signature
from ondevice.weights.output import folder_bytes

from ..graph.rules import Finding as Finding
from .options import check_run_on, number_in
from .pixels import PIL_MODES, as_mode, is_image, normalized, planes
from .stored import (
    Contents as Contents,
    Feature as Feature,
    Operation as Operation,
    Weight as Weight,
)

if TYPE_CHECKING:
    from ..graph.graph import Array

PREPROCESS_KEY = "ondevice.preprocess"
INPUT_KEY = "ondevice.input"
LABELS_KEY = "ondevice.labels"
MAX_OVERLAP_KEY = "ondevice.max_overlap"
KEYWORDS_KEY = "ondevice.keywords"
EXAMPLES_KEY = "ondevice.examples"  # type and shape of each, where the package's say another

# Where a package is run: by what runs on any machine, by Apple's framework on this Mac, or by
# the latter where there is one.
RunOn = Literal["reference", "device", "auto"]


class Program(ABC):
    """A saved package: what it says of itself, what it holds, and the same ``predict``
    everywhere. A ``function`` is one of several; without one, the package's default."""

    path: Path
    setting_names: tuple[str, ...] = ()  # of the choices that packages are exported with
    selected = ""  # the function that ``at`` chose

    def __repr__(self) -> str:
        shapes = ", ".join(f"{f.name}: {f.kind}{list(f.shape)}" for f in self.inputs.values())
        return f"{type(self).__name__}({str(self.path)!r}, {shapes})"

    # What it says of itself.

    @property
    def functions(self) -> list[str]:
        """Their names: one, unless the format can have several."""
        return ["main"]

    @property
    def default_function(self) -> str:
        """The one that is meant where none is named."""
        return self.functions[0]

    def at(self, function: str) -> Self:
        """The same package with ``function`` as the default. Raises PackageError."""
        view = copy.copy(self)
        view.selected = self.named_function(function)
        vars(view).pop("preprocess", None)
        return view

    def faults(self) -> Iterator[str]:
        """What the package says of itself and does not hold, in words."""
        yield from ()

    @abstractmethod
    def features(self, which: str, function: str | None = None) -> dict[str, Feature]:
        """The inputs (``which="input"``) or outputs of a function, by name."""

    @property
    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """Author, license, description and version, then what the maker added."""

    @property
    def system(self) -> str:
        """The oldest system that runs it."""
        return "any system"

    @property
    def inputs(self) -> dict[str, Feature]:
        """Those of the default function, by name."""
        return self.features("input")

    @property
    def outputs(self) -> dict[str, Feature]:
        """Those of the default function, by name."""
        return self.features("output")

    @property
    def optional_inputs(self) -> dict[str, Feature]:
        """What ``predict`` takes besides, and can do without."""
        return {}

    @property
    def keep_all(self) -> Mapping[str, float]:
        """The optional inputs with which nothing is left out of what is computed."""
        return {}

    @property
    def arrays(self) -> tuple[str, ...]:
        """The outputs that are arrays, or images, which are arrays of (1, channels, height,
        width): not a class label or its scores by label."""
        return tuple(n for n, f in self.outputs.items() if f.kind in ("array", "image"))

    @cached_property
    def preprocess(self) -> Preprocess | None:
        """The preprocessing contract inside, if there is one: of several functions, for the
        image size of the default one. Raises PackageError."""
        text = self.metadata.get(PREPROCESS_KEY)
        if text is None:
            return None
        try:
            found = Preprocess.from_dict(json.loads(text))
            sizes = [f.shape for f in self.inputs.values() if f.kind == "image"]
            if len(self.functions) > 1 and len(sizes) == 1:
                return replace(found, size=sizes[0][0])
            return found
        except (ValueError, AttributeError, ConfigError) as error:
            raise PackageError(f"{self.path}: bad {PREPROCESS_KEY}: {error}") from error

    @property
    def model_outputs(self) -> Mapping[str, str]:
        """What the model calls the outputs that are arrays, with the package's names."""
        return {name: name for name in self.arrays}

    @property
    def max_overlap(self) -> float:
        """Of two boxes of one class that overlap more, the less sure has to be dropped; 1: none
        has. Raises PackageError."""
        said = self.metadata.get(MAX_OVERLAP_KEY, 1)
        if 0 <= (found := number_in(self.path, MAX_OVERLAP_KEY, said)) <= 1:
            return found
        raise PackageError(f"{self.path}: {MAX_OVERLAP_KEY} is {said!r}, expected 0 to 1")

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in order. Raises PackageError."""
        own = f"{LABELS_KEY}.{self.selected or self.default_function}"
        return tuple(map(str, self._said(own if own in self.metadata else LABELS_KEY)))

    @property
    def keywords(self) -> tuple[str, ...]:
        """The names by which the module was called; nothing if it was by position."""
        found = self._said(KEYWORDS_KEY)
        if found and len(found) != len(self.inputs):
            raise PackageError(
                f"{self.path}: bad {KEYWORDS_KEY}: {len(found)} names for {len(self.inputs)} "
                "inputs"
            )
        return tuple(map(str, found))

    def _said(self, key: str) -> list[Any]:
        """A list in the metadata. Raises PackageError."""
        try:
            found = json.loads(self.metadata.get(key, "[]"))
            return list(found)
        except (ValueError, TypeError) as error:
            raise PackageError(f"{self.path}: bad {key}: {error}") from error

    @property
    def settings(self) -> dict[str, str]:
        """The choices that it was exported with, as far as it says so."""
        said = {name: self.metadata.get(f"ondevice.{name}") for name in self.setting_names}
        return {name: value for name, value in said.items() if value is not None}

    @property
    def precision(self) -> str:
        """The type of its computed values."""
        return self.settings.get("precision", "float16")

    @property
    def is_compressed(self) -> bool:
        """Whether a recipe or a search compressed it."""
        return "ondevice.recipe" in self.metadata

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as ``verify`` and apps read them: images with their contract."""
        inputs = tuple(map(self._input, self.inputs.values()))
        outputs = tuple(Output(name) for name in self.arrays)
        return Signature(inputs, outputs, self.arrays, str(self.path))

    def _input(self, feature: Feature) -> Input:
        image = self.as_image(feature)
        if image.kind == "image" and self.preprocess is not None:
            shape = (1, *image.shape, 3)
            return Input(feature.name, "image", shape, contract=self.preprocess)
        return self.array_input(feature)

    def array_input(self, feature: Feature) -> Input:
        """An input as an array, whatever it may stand for."""
        return Input(feature.name, shape=feature.shape, dtype=feature.numpy_type)

    def as_image(self, feature: Feature) -> Feature:
        """An array that the contract makes of an image, as that image; else ``feature``."""
        made = self.metadata.get(INPUT_KEY) == "array" and self.preprocess is not None
        if made and feature.kind == "array" and feature.shape[:-2] == (1, 3):
            return Feature(feature.name, "image", feature.shape[-2:], "RGB")
        return feature

    @property
    def module_inputs(self) -> tuple[Input, ...]:
        """The inputs as the module was called with them: a package has no truth values, small
        integers or arrays without an axis. Raises PackageError."""
        inputs = tuple(map(self.array_input, self.inputs.values()))
        said = self._said(EXAMPLES_KEY)
        try:
            return (
                tuple(
                    replace(i, dtype=np.dtype(dtype).name, shape=tuple(map(int, shape)))
                    for i, (dtype, shape) in zip(inputs, said, strict=True)
                )
                if said
                else inputs
            )
        except (ValueError, TypeError) as error:
            raise PackageError(f"{self.path}: bad {EXAMPLES_KEY}: {error}") from error

    # What it holds.

    @abstractmethod
    def stored(self, function: str | None = None) -> Contents:
        """A function as it is written, whether or not it can be run here."""

    @property
    def operations(self) -> list[str]:
        """The default function's operation types in order, constants aside."""
        return [op.type for op in self.stored().operations]

    @property
    def weights(self) -> Mapping[str, Weight]:
        """The default function's stored constants by name: format, shape and bytes."""
        return self.stored().weights

    @abstractmethod
    def results(self) -> Sequence[str]:
        """The names that the outputs have inside. Raises PackageError for a broken program."""

    @property
    def data_moving(self) -> frozenset[str]:
        """The types of operations that only move values."""
        return frozenset()

    @abstractmethod
    def array(self, name: str, function: str | None = None) -> Array:
        """A weight's values, decompressed. Raises PackageError if there is no such weight."""

    def findings(self, function: str | None = None) -> Sequence[Finding]:
        """What a lint says of it, the worst first."""
        return ()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return folder_bytes(self.path)

    # Running it.

    @abstractmethod
    def walk(
        self, inputs: Mapping[str, Any], *, function: str | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Every value that is computed, with its name inside, in order."""

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        run_on: RunOn = "reference",
        function: str | None = None,
    ) -> dict[str, Any]:
        """Outputs by name: arrays (floats as float32), a label, or a dictionary of scores.

        An image input takes pixels of exactly its size: a PIL image, a path to one, or uint8
        values (height, width, 3). Nothing is resized or cropped; ``resize_and_crop(photo)``
        does that. So does an array that stands for an image; it takes the normalized values
        as well. Raises PackageError, and ImageError for a file that is no image.
        """
        check_run_on(run_on)
        if run_on == "device":
            raise PackageError(f"{self.path}: there is no device here; use run_on='reference'")
        values = dict(self.walk(inputs, function=function))
        return dict(zip(self.outputs, (values[n] for n in self.results()), strict=True))

    def devices(self) -> Sequence[Device]:
        """The package as each of this machine's processors runs it; none off Apple's."""
        return ()

    def measure(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Latency and placement on this machine's devices."""
        return {}

    def caveats(self) -> Sequence[str]:
        """What a run here cannot show, in words."""
        return ()

    def resize_and_crop(self, photo: Any, *, function: str | None = None) -> Array:
        """A photo (PIL image, path, pixel values) as the uint8 (height, width, 3) pixel values
        that ``predict`` takes, by the preprocessing contract in the package.

        ``function`` is that which is called, of several. Raises ImageError for a photo that
        cannot be read, PackageError if the package has no contract or not one image input.
        """
        from ondevice.image.preprocess import resize_and_crop

        features = map(self.as_image, self.features("input", function).values())
        sizes = [f.shape for f in features if f.kind == "image"]
        if self.preprocess is None or len(sizes) != 1:
            raise PackageError(
                f"{self.path}: has no preprocessing contract of one image; give predict pixels "
                "of the size that the input has"
            )
        return resize_and_crop(photo, replace(self.preprocess, size=sizes[0][0]))

    def named_function(self, function: str | None) -> str:
        """The function that is meant. Raises PackageError if there is none of that name."""
        name = function or self.default_function
        if name not in self.functions:
            known = ", ".join(self.functions)
            raise PackageError(f"{self.path}: no function {name!r}; it has {known}")
        return name

    def named(self, arrays: Sequence[Any]) -> dict[str, Any]:
        """One array for each input, in order, as ``predict`` takes them."""
        return dict(zip(self.inputs, arrays, strict=True))

    def checked(self, inputs: Mapping[str, Any], function: str | None) -> dict[str, Feature]:
        """The input features, of which ``inputs`` has all. Raises PackageError."""
        features = self.features("input", function)
        if not isinstance(inputs, Mapping):
            kind = type(inputs).__name__
            raise PackageError(
                f"{self.path}: takes a dict of {', '.join(features)}; given {kind}"
            )
        if inputs.keys() - self.optional_inputs.keys() != features.keys():
            given = ", ".join(inputs) or "nothing"
            raise PackageError(f"{self.path}: takes {', '.join(features)}; given {given}")
        return features

    def given(self, inputs: Mapping[str, Any], function: str | None) -> dict[str, Array]:
        """What ``predict`` was given, as the arrays that go in: an image's channels first."""
        features = self.checked(inputs, function)
        return {name: self.given_array(f, inputs[name]) for name, f in features.items()}

    def given_array(self, feature: Feature, value: Any) -> Array:
        """One input as the array that goes in. Raises PackageError."""
        if feature.kind == "image":
            return planes(self.pixels(feature, value), feature)
        image = self.as_image(feature)
        if image is not feature and is_image(value):
            assert self.preprocess is not None  # see as_image
            return planes(normalized(self.pixels(image, value), self.preprocess), image)
        if isinstance(value, Image.Image):
            raise PackageError(f"{self.path}: input {feature.name!r} is an array, not an image")
        array = np.asarray(value)
        if not array.ndim and feature.shape == (1,):  # a package has no shape ()
            array = array.reshape(1)
        if not feature.fits(array.shape):
            raise PackageError(
                f"{self.path}: input {feature.name!r} has shape {list(feature.shape)}; "
                f"given {list(array.shape)}"
            )
        return array.astype(feature.numpy_type)

    def pixels(self, feature: Feature, value: Any) -> Array:
        """The image of exactly the declared size, as uint8 (height, width, channels)."""
        mode = PIL_MODES[feature.dtype]
        is_array = hasattr(value, "shape") and not isinstance(value, str)  # MLX's, too
        pixels = np.asarray(value) if is_array else as_mode(value, mode)
        if pixels.dtype != np.uint8 and mode != "F":
            raise PackageError(f"{self.path}: image pixels are uint8; given {pixels.dtype}")
        wanted = feature.shape + ((3,) if mode == "RGB" else ())
        if pixels.shape != wanted:
            raise PackageError(
                f"{self.path}: input {feature.name!r} is an image of shape {list(wanted)}; "
                f"given {list(pixels.shape)}; resize_and_crop(photo) makes it of a photo"
            )
        return pixels


@dataclass(frozen=True)
class Device:
    """A package on one choice of processors."""

    name: str
    program: Program
