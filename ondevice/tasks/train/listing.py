"""Which images a folder has, and what they show: by folders, ``labels.csv`` or metadata."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, printable
from ...image.files import expand, is_image_name

# What folders of a split are called: torchvision's, Create ML's and Hugging Face's names.
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_FILE = ("file_name", "filename", "file", "image", "path")  # columns of a table
_LABEL = ("label", "class", "category", "labels")


@dataclass(frozen=True)
class Row:
    """An image, the name of its class, and its split; "" where none is given."""

    path: str
    label: str
    split: str = ""


def list_images(folder: Path) -> list[Row]:
    """All images below ``folder`` with their classes, in the order of paths' bytes.

    Raises ConfigError with all that is wrong.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give one with a folder of images per class")
    problems: list[str] = []
    rows = [row for part, split in _parts(folder) for row in _rows(part, split, problems)]
    if problems:
        raise ConfigError("; ".join(problems))
    return sorted(rows, key=lambda row: os.fsencode(row.path))


def _parts(folder: Path) -> list[tuple[Path, str]]:
    """The folders of its splits with the splits' names, or the folder itself."""
    inside = _folders(folder)
    splits = [SPLITS.get(path.name.lower(), "") for path in inside]
    if "train" in splits and all(splits):
        return list(zip(inside, splits, strict=True))
    return [(folder, "")]


def _folders(folder: Path) -> list[Path]:
    hidden = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name not in hidden
    )


def _rows(folder: Path, split: str, problems: list[str]) -> Iterator[Row]:
    for name in _TABLES:
        if (folder / name).is_file():
            return _listed(folder, name, split, problems)
    return _by_folder(folder, split, problems)


def _by_folder(folder: Path, split: str, problems: list[str]) -> Iterator[Row]:
    loose = sorted(p.name for p in folder.iterdir() if p.is_file() and is_image_name(p.name))
    classes = _folders(folder)
    if loose:
        problems.append(
            f"{folder}: {len(loose):,} images lie beside the folders of classes, such as "
            f"{printable(loose[0])}; put each into the folder of its class"
        )
    elif not classes:
        problems.append(f"{folder} is empty: expected a folder of images for each class")
    for path in classes:
        try:
            yield from (Row(image, path.name, split) for image in expand([str(path)]))
        except ConfigError:
            may = os.access(path, os.R_OK | os.X_OK)
            why = "has no images" if may else "is a folder that may not be read"
            problems.append(f"{printable(str(path))} {why}")


Table = list[Mapping[str, Any]]


def _read_csv(text: str) -> Table:
    return list(csv.DictReader(io.StringIO(text)))


def _read_json_lines(text: str) -> Table:
    table = [json.loads(line) for line in text.splitlines() if line.strip()]
    if odd := next((row for row in table if not isinstance(row, Mapping)), None):
        raise ValueError(f"{printable(json.dumps(odd))} is no object with a file and a label")
    return table


_TABLES: dict[str, tuple[Callable[[str], Table], int]] = {  # and its first row's number
    "labels.csv": (_read_csv, 2),
    "metadata.csv": (_read_csv, 2),
    "metadata.jsonl": (_read_json_lines, 1),
}


def _listed(folder: Path, name: str, split: str, problems: list[str]) -> Iterator[Row]:
    """The rows of a table, whose paths are relative to its folder."""
    path, (read, first) = folder / name, _TABLES[name]
    try:
        table = read(path.read_text(encoding="utf-8-sig"))
        keys = {str(key).strip().lower(): key for key in (table[0] if table else {})}
    except (OSError, ValueError, csv.Error, TypeError) as error:
        problems.append(f"{path} cannot be read: {error}")
        return
    file = next((keys[key] for key in _FILE if key in keys), None)
    label = next((keys[key] for key in _LABEL if key in keys), None)
    if file is None or label is None:
        given = ", ".join(map(printable, keys)) or "nothing"
        problems.append(f"{path} has {given}; expected the columns file_name and label")
        return
    for number, row in enumerate(table, start=first):
        values = row.get(file), row.get(label)
        if any(value in (None, "") for value in values):
            problems.append(f"{path}: row {number} lacks a file or a label")
            continue
        said = str(row.get(keys.get("split", "")) or "").strip()
        if said and said.lower() not in SPLITS:
            problems.append(
                f"{path}: row {number} has the split {printable(said)}; expected train, val or "
                "test"
            )
            continue
        own = SPLITS.get(said.lower(), split)
        yield Row(str(folder / str(values[0])), str(values[1]).strip(), own)
