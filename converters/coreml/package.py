"""From a MIL program to a saved ``.mlpackage`` that explains itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coremltools.converters.mil.mil import Program, types
from coremltools.converters.mil.mil.types import nptype_from_builtin

from ondevice.image.colours import palette
from ondevice.weights.output import folder_bytes

from ..backend import Part
from ..function import PROBABILITIES, Function
from .objects import gives_objects, with_suppression
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
    _declare_images(program, function)
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
            network = ct.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=opset(target),
                pass_pipeline=ct.PassPipeline(_PASSES, "ondevice"),
                skip_model_load=True,
                **options,
            )
    return with_suppression(network, function) if gives_objects(function) else network


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


# How Core ML calls what ``Output.pixels`` does, and the type that such an image is made of.
_COLOURS = {
    "grey": ("GRAYSCALE", types.fp32),
    "grey16": ("GRAYSCALE_FLOAT16", types.fp16),
    "rgb": ("RGB", types.fp32),
}


def _declare_images(program: Program, function: Function) -> None:
    """Let outputs that are images be so, where Core ML has an image of their type."""
    import coremltools as ct

    main = program.functions["main"]
    found: list[Any] = []
    for output, value in zip(function.signature.outputs, main.outputs, strict=True):
        name, dtype = _COLOURS.get(output.pixels, ("", None))
        if name and value.dtype == dtype and not function.io_dtype:
            found.append(ct.ImageType(name=value.name, color_layout=ct.colorlayout[name]))
        else:
            found.append(ct.TensorType(name=value.name))
    if any(isinstance(each, ct.ImageType) for each in found):
        main.set_output_types(found)


# What Xcode shows of a package, by the kind of an output.
_PREVIEWS = {"depth": "depthEstimation", "mask": "imageSegmenter"}


def _preview(function: Function) -> dict[str, str]:
    """The metadata by which Xcode shows what comes out for an image of one's own."""
    if function.io_dtype:
        return {}
    key = "com.apple.coreml.model.preview"
    if function.labels:
        return {f"{key}.type": "imageClassifier"}
    for output in function.signature.outputs:
        if output.kind in _PREVIEWS:
            said = {f"{key}.type": _PREVIEWS[output.kind]}
            if output.labels:
                said[f"{key}.params"] = json.dumps(_legend(output.labels))
            return said
    return {}


def _legend(labels: Sequence[str]) -> dict[str, list[str]]:
    """The name and the colour of each class, as Xcode reads them."""
    colours = ["#{:02X}{:02X}{:02X}".format(*colour) for colour in palette(len(labels))]
    return {"labels": list(labels), "colors": colours}


def describe(package: Any, function: Function, metadata: Mapping[str, str]) -> None:
    """Write who made it and from what into the package, a line for each input and output."""
    _tell(package, {**metadata, **_preview(function)})
    for name, form in zip(function.input_names, function.forms, strict=True):
        if form:
            package.input_description[name] = form.text
    for output in function.signature.outputs:
        is_said = output.name in package.output_description and output.name != PROBABILITIES
        if output.text and is_said:
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
