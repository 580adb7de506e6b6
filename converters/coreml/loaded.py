"""A saved Core ML package as an object that can be run, on any machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ondevice.errors import PackageError

from ..program import Device, Feature, Finding, Program, RunOn
from ..program.options import check_run_on, number_in
from .reader import SavedPackage, open_package, quiet
from .reference.plan import Plan, compile_function, stored_constants
from .reference.registry import Array
from .settings import CoreMLSettings
from .stored import DATA_MOVING, StoredFunction, stored_function

_ARRAY_TYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}
_COLOURS = {10: "grayscale", 20: "RGB", 30: "BGR", 40: "grayscale_float16"}
# The oldest system that opens a specification version.
_SYSTEMS = {6: "iOS15", 7: "iOS16", 8: "iOS17", 9: "iOS18", 10: "iOS26"}


def load_package(path: str | Path) -> Package:
    """Open a saved ``.mlpackage``. Raises PackageError."""
    from .objects import ObjectsPackage

    saved = open_package(path)
    return (ObjectsPackage if saved.is_pipeline else Package)(saved)


class Package(Program):
    """A saved ``.mlpackage``, run by our own evaluator, or by Core ML on a Mac."""

    setting_names = tuple(f.name for f in fields(CoreMLSettings))

    def __init__(self, saved: SavedPackage, *, compute_units: str = "ALL") -> None:
        """``compute_units``, as coremltools calls them, are for Core ML."""
        self.saved, self.compute_units = saved, compute_units
        self.path = saved.path
        self._plans: dict[str, Plan] = {}
        self._models: dict[str, Any] = {}
        self._constants: dict[str, dict[str, Any]] = {}
        self._stored: dict[str, StoredFunction] = {}

    # What the package says of itself.

    @property
    def functions(self) -> list[str]:
        return sorted(self.saved.network.mlProgram.functions)

    @property
    def default_function(self) -> str:
        return self.selected or self.saved.spec.description.defaultFunctionName or "main"

    def faults(self) -> Iterator[str]:
        declared, made = len(self.outputs), len(self.results())
        if declared != made:
            yield f"the program computes {made} outputs; the package declares {declared}"
        said = self.saved.spec.description.predictedFeatureName
        labels = [f.name for f in self.outputs.values() if f.kind == "string"]
        if said and said not in labels:
            known = ", ".join(labels) or "none"
            yield f"{said!r} is said to be the predicted class; outputs of labels: {known}"

    def features(self, which: str, function: str | None = None) -> dict[str, Feature]:
        name = self.named_function(function)
        description = self.saved.spec.description
        several = {f.name: f for f in description.functions}
        declared = getattr(several.get(name, description), which)
        return {f.name: feature_of(f) for f in declared}

    @property
    def metadata(self) -> dict[str, str]:
        said = self.saved.spec.description.metadata
        names = ("author", "license", "shortDescription", "versionString")
        standard = {name: getattr(said, name) for name in names if getattr(said, name)}
        return standard | dict(said.userDefined)

    @property
    def system(self) -> str:
        version = self.saved.spec.specificationVersion
        return _SYSTEMS.get(version, f"specification {version}")

    @property
    def labels(self) -> tuple[str, ...]:
        """A classifier's classes in order; of several functions what the metadata say."""
        operations = self.program.functions[self.default_function].operations
        found = [op.classes.val for op in operations if op.op_type == "classify"]
        return tuple(map(str, found[0])) if found else super().labels

    # What it holds.

    def results(self) -> Sequence[str]:
        return self.plan().outputs

    @property
    def data_moving(self) -> frozenset[str]:
        return DATA_MOVING

    def findings(self, function: str | None = None) -> Sequence[Finding]:
        from .lint import lint

        return lint(self.stored(function))

    def array(self, name: str, function: str | None = None) -> Array:
        function = self.named_function(function)
        if function not in self._constants:
            operations = self.program.functions[function].operations
            self._constants[function] = stored_constants(operations)
        if name not in self._constants[function]:
            raise PackageError(f"{self.path}: no weight {name!r}")
        return np.asarray(self._constants[function][name])

    def stored(self, function: str | None = None) -> StoredFunction:
        """A function as written, whether or not it can be run here."""
        name = self.named_function(function)
        if name not in self._stored:
            self._stored[name] = stored_function(self.saved, name)
        return self._stored[name]

    # Running it.

    @cached_property
    def program(self) -> Any:
        """The MIL program as coremltools' own objects."""
        return self.saved.program()

    def plan(self, function: str | None = None) -> Plan:
        """How the evaluator runs a function. Raises PackageError for a broken one."""
        name = self.named_function(function)
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
        run_on: RunOn = "reference",
        function: str | None = None,
    ) -> dict[str, Any]:
        """As ``Program.predict``. ``"device"`` is Core ML, on macOS only."""
        check_run_on(run_on)
        if run_on == "device" and sys.platform != "darwin":
            raise PackageError("run_on='device' is Core ML on macOS; here it is 'reference'")
        if run_on == "device" or (run_on == "auto" and sys.platform == "darwin"):
            return self._predict_with_coreml(inputs, self.named_function(function))
        values = self._run(inputs, None, function)
        return {name: values[name] for name in self.features("output", function)}

    def devices(self) -> Sequence[Device]:
        from .device import UNITS

        if sys.platform != "darwin":
            return ()
        return [Device(f"Core ML {unit}", self.on(unit)) for unit in UNITS]

    def on(self, unit: str) -> Package:
        """The same package, which Core ML runs on ``unit``."""
        return type(self)(self.saved, compute_units=unit)

    def measure(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        from .device import measure

        return measure(self, inputs).to_dict()

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
        yield from self.plan(function).walk(self.given(inputs, function))

    def _run(
        self,
        inputs: Mapping[str, Any],
        keep: Callable[[str], bool] | None,
        function: str | None,
    ) -> dict[str, Any]:
        arrays = self.given(inputs, function)
        return self._named(self.plan(function).run(arrays, keep), function)

    def _named(self, values: dict[str, Any], function: str | None) -> dict[str, Any]:
        """A classifier's outputs are known outside by other names than in the program."""
        plan, declared = self.plan(function), self.features("output", function)
        missing = [name for name in declared if name not in values]
        spare = [name for name in plan.outputs if name not in declared]
        return values | dict(zip(missing, (values[n] for n in spare), strict=False))

    def _predict_with_coreml(self, inputs: Mapping[str, Any], function: str) -> dict[str, Any]:
        features = self.checked(inputs, function)
        given: dict[str, Any] = {
            name: Image.fromarray(self.pixels(feature, inputs[name]))
            if feature.kind == "image"
            else self.given_array(feature, inputs[name])
            for name, feature in features.items()
        }
        others = inputs.keys() - features.keys()
        given |= {name: number_in(self.path, name, inputs[name]) for name in others}
        results: dict[str, Any] = self.core_ml_model(function).predict(given)
        return {name: _plain(value) for name, value in results.items()}

    def core_ml_model(self, function: str | None = None) -> Any:
        """coremltools' ``MLModel``, loaded by Core ML: on macOS only."""
        name = self.named_function(function)
        if name not in self._models:
            self._models[name] = self._loaded_by_core_ml(name)
        return self._models[name]

    def _loaded_by_core_ml(self, function: str) -> Any:
        with quiet():
            import coremltools as ct

            several = {"function_name": function} if len(self.functions) > 1 else {}
            units = ct.ComputeUnit[self.compute_units]
            return ct.models.MLModel(str(self.path), compute_units=units, **several)


def feature_of(declared: Any) -> Feature:
    """An input or output as a specification declares it."""
    kind = declared.type.WhichOneof("Type")
    if kind == "imageType":
        image = declared.type.imageType
        layout = _COLOURS.get(image.colorSpace, "RGB")
        return Feature(declared.name, "image", (image.height, image.width), layout)
    if kind == "multiArrayType":
        array = declared.type.multiArrayType
        dtype = _ARRAY_TYPES.get(array.dataType, str(array.dataType))
        ranges = array.shapeRange.sizeRanges
        flexible = (r.upperBound if r.lowerBound == r.upperBound else -1 for r in ranges)
        return Feature(declared.name, "array", tuple(array.shape or flexible), dtype)
    return Feature(declared.name, (kind or "unknown").removesuffix("Type"))


def _plain(value: Any) -> Any:
    if isinstance(value, Image.Image):
        pixels = np.asarray(value, np.float32)  # RGBA of what is RGB
        planes = pixels[None] if pixels.ndim == 2 else pixels[..., :3].transpose(2, 0, 1)
        return planes[None]
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(np.float32) if is_float else value
