"""Where annotations in COCO's form lie in a folder, and where their images do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from ...errors import ConfigError, printable
from ..train.listing import SPLITS

ROBOFLOW = "_annotations.coco.json"  # lies in the folder of the images
COCO = "instances_"  # and the split, as in annotations/instances_val2017.json
SUFFIX = ".json"
TRIED = 5  # images that are looked for, to find the folder of all


def annotation_files(source: str | Path) -> dict[str, Path]:
    """The annotations that ``source`` has, by split: "train", "val", "test", or "" if its
    name says none.

    It is a .json file, a folder with one, Roboflow's export (a folder a split, with
    ``_annotations.coco.json`` beside the images), or COCO's own
    (``annotations/instances_val2017.json``). Raises ConfigError if there are none, or two of
    one split.
    """
    source = Path(source)
    if source.is_file() and source.suffix == SUFFIX:
        return {"": source}
    if not source.is_dir():
        problem = f"is no {SUFFIX}" if source.is_file() else "does not exist"
        raise ConfigError(f"{source} {problem}; give a folder in COCO's form, or a {SUFFIX}")
    for find in (*_LAYOUTS, _only_one):
        if found := find(source):
            return _one_each(source, found)
    raise ConfigError(
        f"{source} has no annotations in COCO's form; expected {ROBOFLOW} in it or in its "
        f"folders train, valid and test, or annotations/{COCO}*{SUFFIX}"
    )


def is_coco(source: str | Path) -> bool:
    """Whether it is a .json file or a folder that only sets in COCO's form look like."""
    source = Path(source)
    if source.is_dir():
        return any(find(source) for find in _LAYOUTS)
    return source.is_file() and source.suffix == SUFFIX


Found: TypeAlias = list[tuple[str, Path]]  # splits, and their annotations


def _beside_images(folder: Path) -> Found:
    path = folder / ROBOFLOW
    return [("", path)] if path.is_file() else []


def _in_splits(folder: Path) -> Found:
    inside = ((SPLITS.get(p.name.lower(), ""), p / ROBOFLOW) for p in sorted(folder.iterdir()))
    return [(split, path) for split, path in inside if split and path.is_file()]


def _as_coco_has_them(folder: Path) -> Found:
    paths = sorted((folder / "annotations").glob(f"{COCO}*.json"))
    named = (
        (SPLITS.get(_part(path).rstrip("0123456789-_").lower(), ""), path) for path in paths
    )
    return [(split, path) for split, path in named if split]


_LAYOUTS = (_beside_images, _in_splits, _as_coco_has_them)


def _only_one(folder: Path) -> Found:
    paths = [*folder.glob("*.json"), *(folder / "annotations").glob("*.json")]
    return [("", paths[0])] if len(paths) == 1 else []


def _part(path: Path) -> str:
    """What the name of annotations says of the images that they are for: "val2017"."""
    return path.stem.removeprefix(COCO)


def _one_each(folder: Path, found: Found) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    for split, path in found:
        other = splits.setdefault(split, path)
        if other.resolve() != path.resolve():
            raise ConfigError(
                f"{folder} has two sets for {split}, {other.relative_to(folder)} and "
                f"{path.relative_to(folder)}; give one of them"
            )
    return splits


def folder_of(path: Path, names: Sequence[str]) -> Path:
    """Where the images lie. Raises ConfigError if none is found."""
    near, above, part = path.parent, path.parent.parent, _part(path)
    folders = [near, near / "images", near / part, above / part, above / "images"]
    folders += [above / "images" / part, above]
    for folder in folders:
        if not names or any(os.path.isfile(folder / name) for name in names[:TRIED]):
            return folder
    looked = ", ".join(map(str, dict.fromkeys(folders[:4])))
    raise ConfigError(
        f"{path}: no image is there, such as {printable(names[0])}; looked in {looked}, …"
    )
