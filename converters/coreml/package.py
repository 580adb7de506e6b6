"""From a MIL program to a saved ``.mlpackage`` that explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coremltools.converters.mil.mil import Program

from ondevice.weights.output import folder_bytes

from ..interface import Interface
from .reader import quiet
from .sharing import share_constants, shorten_names, small_constants_inline
from .target import opset

# All that is left to do for coremltools after our own passes.
_PASSES = ["common::dead_code_elimination"]


def to_package(program: Program, interface: Interface, *, target: str) -> Any:
    """Serialize ``program``: an ``MLModel`` whose weights lie in a temporary folder.

    Every byte is saved that costs no number: see ``sharing``.
    """
    shorten_names(share_constants(program))
    with quiet():
        import coremltools as ct

        options: dict[str, Any] = {}
        if interface.picture and not interface.border:
            height, width = interface.inputs[0].shape[1:3]
            options["inputs"] = [
                ct.ImageType(
                    name=interface.picture.name,
                    shape=(1, 3, height, width),
                    color_layout=ct.colorlayout.RGB,
                )
            ]
        if interface.labels:
            options["classifier_config"] = ct.ClassifierConfig(
                list(interface.labels), predicted_probabilities_output="probabilities"
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


def describe(package: Any, interface: Interface, metadata: Mapping[str, str]) -> None:
    """Write who made it and from what into the package, a line for each input and output."""
    _tell(package, metadata)
    if picture := interface.picture:
        package.input_description[picture.name] = picture.described
    for name, line in interface.described.items():
        package.output_description[name] = line


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


def save(package: Any, path: Path) -> None:
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
