"""From a MIL program to a saved ``.mlpackage`` that explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coremltools.converters.mil.mil import Program
from coremltools.converters.mil.mil.types import nptype_from_builtin

from ondevice.weights.output import folder_bytes

from ..backend import Part
from ..function import PROBABILITIES, Function
from .reader import quiet
from .sharing import share_constants, shorten_names, small_constants_inline
from .target import opset

# All that is left to do for coremltools after our own passes.
_PASSES = ["common::dead_code_elimination"]


def to_package(program: Program, function: Function, *, target: str) -> Any:
    """Serialize ``program``: an ``MLModel`` whose weights lie in a temporary folder.

    Every byte is saved that costs no number: see ``sharing``.
    """
    shorten_names(share_constants(program))
    with quiet():
        import coremltools as ct

        options: dict[str, Any] = {}
        if any(form and not form.io_dtype for form in function.forms):
            options["inputs"] = _input_types(program, function)
        if function.labels:
            options["classifier_config"] = ct.ClassifierConfig(
                list(function.labels), predicted_probabilities_output=PROBABILITIES
            )
        with small_constants_inline():
            return ct.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=opset(target),
                pass_pipeline=ct.PassPipeline(_PASSES, "ondevice"),
                skip_model_load=True,
                **options,
            )


def _input_types(program: Program, function: Function) -> list[Any]:
    """An image type for each image, the program's own tensors for the others."""
    import coremltools as ct

    placeholders = program.functions["main"].inputs
    types = []
    for given, form, example in zip(
        function.signature.inputs, function.forms, function.inputs, strict=True
    ):
        if form and not form.io_dtype:
            height, width = example.shape[1:3]
            shape, colors = (1, 3, height, width), ct.colorlayout.RGB
            types.append(ct.ImageType(name=given.name, shape=shape, color_layout=colors))
        else:
            tensor = placeholders[given.name]
            dtype = nptype_from_builtin(tensor.dtype)
            types.append(ct.TensorType(name=given.name, shape=tensor.shape, dtype=dtype))
    return types


def describe(package: Any, function: Function, metadata: Mapping[str, str]) -> None:
    """Write who made it and from what into the package, a line for each input and output."""
    said = dict(metadata)
    if function.labels and not function.io_dtype:
        said["com.apple.coreml.model.preview.type"] = "imageClassifier"
    _tell(package, said)
    for name, form in zip(function.input_names, function.forms, strict=True):
        if form:
            package.input_description[name] = form.text
    for output in function.signature.outputs:
        if output.text and output.name != PROBABILITIES:
            package.output_description[output.name] = output.text


# What Core ML has a field for; all else is user-defined metadata.
_FIELDS = {
    "author": "author",
    "license": "license",
    "description": "short_description",
    "version": "version",
}


def _tell(package: Any, metadata: Mapping[str, str]) -> None:
    for key, value in metadata.items():
        if key in _FIELDS:
            setattr(package, _FIELDS[key], value)
        else:
            package.user_defined_metadata[key] = value


def save_parts(parts: Mapping[str, Part], path: Path, metadata: Mapping[str, str]) -> None:
    """Save one function as a package, several as one package's functions."""
    if len(parts) == 1:
        (part,) = parts.values()
        describe(part.built, part.function, {**metadata, **part.metadata})
        save(part.built, path)
        return
    saved = {name: path.parent / f"{name}.mlpackage" for name in parts}
    for name, part in parts.items():
        describe(part.built, part.function, {**metadata, **part.metadata})
        save(part.built, saved[name])
    first = next(iter(parts.values()))  # one request compressed them all
    join(saved, path, {**metadata, **first.metadata})


def save(package: Any, path: Path) -> None:
    """Write an ``MLModel`` to ``path``."""
    with quiet():
        package.save(str(path))


def size_of(package: Any) -> int:
    """The bytes of a package once it is saved."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sized.mlpackage"
        save(package, path)
        return folder_bytes(path)


def join(parts: Mapping[str, Path], path: Path, metadata: Mapping[str, str]) -> None:
    """One package with a function for each of ``parts``, equal weights stored once.

    The first is the default.
    """
    with quiet():
        import coremltools as ct

        functions = ct.utils.MultiFunctionDescriptor()
        for name, part in parts.items():
            functions.add_function(str(part), "main", name)
        functions.default_function_name = next(iter(parts))
        joined = path.parent / "joined.mlpackage"
        ct.utils.save_multifunction(functions, str(joined))
        package = ct.models.MLModel(
            str(joined), skip_model_load=True, function_name=functions.default_function_name
        )
        _tell(package, metadata)
        package.save(str(path))
