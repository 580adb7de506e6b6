"""Open an ``.mlpackage`` from anywhere without trusting it, on any machine.

Everything that Core ML or coremltools would trip over later is checked here, so that a
broken or foreign package is one clear line: the manifest, the paths in it, the model
format, and that each weight lies inside the file it is said to be in.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import PackageError

# A weight file's record: sentinel, type, bytes, where they start (MIL's blob format 2).
_BLOB = struct.Struct("<IIQQ")
_BLOB_SENTINEL = 0xDEADBEEF
_BLOB_RECORD = 64


@dataclass(frozen=True)
class Blob:
    """A weight's bytes in the package."""

    file: Path
    offset: int
    bytes: int


@dataclass(frozen=True)
class SavedPackage:
    """A package on disk whose parts were found: its protobuf and its weights folder."""

    path: Path
    spec: Any
    weights_dir: Path

    @property
    def is_pipeline(self) -> bool:
        """Whether a stage that suppresses boxes stands behind the network."""
        return self.spec.WhichOneof("Type") == "pipeline"

    @property
    def network(self) -> Any:
        """The specification that has the ML program: the package's, or its pipeline's first."""
        return self.spec.pipeline.models[0] if self.is_pipeline else self.spec

    def program(self) -> Any:
        """The MIL program, as coremltools' own objects. Raises PackageError."""
        network = self.network
        for function in network.mlProgram.functions.values():
            for block in function.block_specializations.values():
                for operation in block.operations:
                    blobs_of(operation, self)
        with quiet():
            from coremltools.converters.mil.frontend.milproto.load import load

            try:
                return load(network, network.specificationVersion, str(self.weights_dir))
            except Exception as error:  # whatever a foreign program makes coremltools raise
                raise PackageError(
                    f"{self.path}: coremltools cannot read its program: {_first_line(error)}"
                ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """coremltools prints of missing Mac libraries and untested versions; not to our users."""
    import logging

    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    sink = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stderr(sink), redirect_stdout(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def open_package(path: str | Path) -> SavedPackage:
    """Raises PackageError, one line that says what is wrong."""
    path = Path(path)
    model = _model_file(path)
    with quiet():
        from coremltools import proto

    spec = proto.Model_pb2.Model()
    try:
        spec.ParseFromString(model.read_bytes())
    except Exception as error:  # protobuf's DecodeError, or OSError
        raise PackageError(f"{path}: the model specification is corrupt: {error}") from error
    _check_kind(path, spec)
    return SavedPackage(path, spec, model.parent / "weights")


def _check_kind(path: Path, spec: Any) -> None:
    """Raises PackageError for what is no ML program, nor one with a stage behind it."""
    kind = spec.WhichOneof("Type") or "model of no type"
    if kind == "pipeline":
        kinds = [str(model.WhichOneof("Type")) for model in spec.pipeline.models]
        if kinds != ["mlProgram", "nonMaximumSuppression"]:
            raise PackageError(
                f"{path}: is a pipeline of {', '.join(kinds) or 'nothing'}; expected an ML "
                "program, or one with a nonMaximumSuppression behind it"
            )
    elif kind != "mlProgram":
        raise PackageError(f"{path}: is a {kind}, not an ML program")


def _model_file(path: Path) -> Path:
    if not path.exists():
        raise PackageError(f"{path}: no such package")
    if not path.is_dir():
        raise PackageError(f"{path}: is not an .mlpackage, which is a folder")
    manifest = _manifest(path)
    root = manifest.get("rootModelIdentifier")
    entries = manifest.get("itemInfoEntries")
    entry = entries.get(root) if isinstance(entries, dict) else None
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise PackageError(f"{path}: its Manifest.json names no root model")
    model = _inside(path, path / "Data", entry["path"])
    if not model.is_file():
        raise PackageError(f"{path}: {entry['path']}, named in Manifest.json, is missing")
    return model


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / "Manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(f"{path}: is not an .mlpackage: it has no Manifest.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PackageError(f"{path}: unreadable Manifest.json: {error}") from error
    if not isinstance(manifest, dict):
        raise PackageError(f"{path}: its Manifest.json is not an object")
    return manifest


def _inside(package: Path, folder: Path, name: str) -> Path:
    """The named file, which must lie in the package, links followed."""
    target = folder / name
    try:
        fine = target.resolve().is_relative_to(package.resolve())
    except (OSError, ValueError, RuntimeError):
        fine = False
    if not fine or Path(name).is_absolute() or ".." in Path(name).parts:
        raise PackageError(f"{package}: {name!r} points outside the package")
    return target


def blobs_of(operation: Any, package: SavedPackage) -> list[Blob]:
    """Where an operation's own constants are stored. Raises PackageError if they are not."""
    values = [
        *operation.attributes.values(),
        *(
            binding.value
            for argument in operation.inputs.values()
            for binding in argument.arguments
            if binding.WhichOneof("binding") == "value"
        ),
    ]
    return [
        _blob(package, value.blobFileValue)
        for value in values
        if value.WhichOneof("value") == "blobFileValue"
    ]


def _blob(package: SavedPackage, value: Any) -> Blob:
    name = value.fileName.removeprefix("@model_path/")
    file = _inside(package.path, package.weights_dir.parent, name)
    where = f"{package.path}: {name}"
    if file.parent != package.weights_dir:
        raise PackageError(f"{where} is not in the package's weights folder")
    try:
        size = file.stat().st_size
        if value.offset + _BLOB_RECORD > size:
            raise PackageError(
                f"{where} is truncated: no weight at {value.offset} in {size} bytes"
            )
        with file.open("rb") as stream:
            stream.seek(value.offset)
            record = stream.read(_BLOB_RECORD)
    except OSError as error:
        raise PackageError(f"{where}: {error.strerror}") from error
    sentinel, _, count, start = _BLOB.unpack_from(record)
    if sentinel != _BLOB_SENTINEL:
        raise PackageError(f"{where} is corrupt: no weight begins at byte {value.offset}")
    if start + count > size:
        raise PackageError(f"{where} is truncated: {size} of {start + count} bytes")
    return Blob(file, start, count)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
