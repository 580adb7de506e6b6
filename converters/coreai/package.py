"""From functions of a graph to a saved ``.aimodel`` that explains itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ondevice.weights.output import folder_bytes

from . import authoring
from .program import Source, to_program

SUFFIX = ".aimodel"
HASH, METADATA = "main.hash", "metadata.json"  # the files beside the program
FIELDS = ("author", "license", "description")  # what Core AI has a field for
CUSTOM = "creatorDefinedMetadata"


@dataclass(frozen=True)
class Built:
    """A function in memory, as it will be saved."""

    source: Source
    module: Any  # a program of this function alone


def build(source: Source) -> Built:
    """Raises UnsupportedOpError for what Core AI cannot hold."""
    return Built(source, to_program({"main": source}))


def save(parts: Mapping[str, Built], path: Path, metadata: Mapping[str, str]) -> None:
    """Write functions by name, the default first, to the folder ``path``.

    Equal weights are stored once. The same functions give the same bytes.
    """
    if list(parts) == ["main"]:
        module = parts["main"].module
    else:
        module = to_program({name: part.source for name, part in parts.items()})
    authoring.write_program(module, path)
    _write_metadata(path / METADATA, metadata)


def _write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """In order and without the time, both of which coreai-core leaves to chance."""
    made = json.loads(path.read_text(encoding="utf-8"))
    made.pop("creationDate", None)
    made |= {key: metadata[key] for key in FIELDS if key in metadata}
    custom = {key: value for key, value in metadata.items() if key not in FIELDS}
    text = json.dumps(made | {CUSTOM: custom}, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def size_of(built: Built) -> int:
    """The bytes of a package once it is saved."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"sized{SUFFIX}"
        save({"main": built}, path, {})
        return folder_bytes(path)
