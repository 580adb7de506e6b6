"""Images with boxes in COCO's form, as COCO itself, Roboflow and most tools for labelling write
it: https://cocodataset.org/#format-data"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np

from ...errors import ConfigError, ImageError, printable
from .coco_files import folder_of

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

Id: TypeAlias = int | str
Entry: TypeAlias = Mapping[str, Any]  # of an image, a category or an annotation

TOLD = 5  # examples of one problem
BEYOND = 1.0  # pixel by which boxes may reach beyond their image: tools round
LARGEST = 1e18  # of numbers of pixels


@dataclass(frozen=True, eq=False)
class CocoImage:
    """One image and its N objects.

    ``boxes`` (N, 4) are x and y of the upper left corner, width and height, in pixels, float64;
    ``classes`` (N,) are positions in the set's ``classes``; ``areas`` (N,) are of the objects
    (or of their boxes, if the file has none), in square pixels; ``crowd`` (N,) is True where a
    box is of many objects that nobody told apart. ``size`` is what the file says of the width
    and height, if anything.
    """

    id: Id
    path: str
    size: tuple[int, int] | None
    boxes: Array
    classes: Array
    areas: Array
    crowd: Array

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises ImageError if the photo is not as large as the boxes were drawn for."""
        if self.size is not None and size != self.size:
            given, wanted = (" x ".join(map(str, each)) for each in (size, self.size))
            raise ImageError(
                f"{printable(self.path)} has {given} pixels, its annotations are for {wanted}"
            )


@dataclass(frozen=True, eq=False)
class CocoSet:
    """Images in the order of their ids, and the names of the classes in the order of theirs.

    ``notes`` are what a user should know.
    """

    path: Path
    classes: tuple[str, ...]
    images: tuple[CocoImage, ...]
    notes: tuple[str, ...] = ()

    def counts(self) -> list[int]:
        """How many objects each class has, crowds aside."""
        found = [image.classes[~image.crowd] for image in self.images]
        return np.bincount(np.concatenate(found), minlength=len(self.classes)).tolist()


def read_coco(path: str | Path) -> CocoSet:
    """The images and boxes of one file of annotations.

    Images lie beside it, in a folder ``images``, or where COCO has them (``val2017`` beside
    ``annotations``). Boxes of no width or height are left out, and ``notes`` say so.

    Raises ConfigError with all that is wrong.
    """
    path = Path(path)
    data, problems = _load(path), _Problems(path)
    categories = _listed(data, "categories", problems)
    categories = _without_root(categories, data["annotations"])
    names = _names(categories, "name", "categories", problems)
    alike = (n for n in names if names.count(n) > 1)
    problems.add_all("categories that are called alike", alike)
    images = _listed(data, "images", problems)
    files = _names(images, "file_name", "images", problems)
    counts = Counter(files)
    again = (n for n in files if n and counts[n] > 1)
    problems.add_all("images of a file that another one has", again)
    unsized = (k for k, each in images.items() if not _has_possible_size(each))
    problems.add_all("images whose width or height is no number of pixels", unsized)
    objects = _objects(data["annotations"], images, categories, problems)
    problems.check()
    folder, index = folder_of(path, files), {k: i for i, k in enumerate(categories)}
    found = (_image(folder, each, objects[k], index) for k, each in images.items())
    return CocoSet(path, tuple(names), tuple(found), tuple(_notes(images, objects)))


class _Problems:
    """What is wrong with a file: a kind of problem, and where it is found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, where: object) -> None:
        self.found[what].append(printable(str(where), 40))

    def add_all(self, what: str, where: Any) -> None:
        for each in dict.fromkeys(map(str, where)):
            self.add(what, each)

    def check(self) -> None:
        """Raises ConfigError if there are any."""
        if self.found:
            lines = "; ".join(f"{what}: {_some(where)}" for what, where in self.found.items())
            raise ConfigError(f"{self.path}: {lines}")


def _some(items: Sequence[str]) -> str:
    more = len(items) - TOLD
    return ", ".join(items[:TOLD]) + (f" and {more:,} more" if more > 0 else "")


def _load(path: Path) -> dict[str, list[Any]]:
    """The file, which has the three lists. Raises ConfigError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    given = data if isinstance(data, dict) else {}
    lists: dict[str, Any] = {
        name: given.get(name) for name in ("images", "categories", "annotations")
    }
    wrong = [name for name, each in lists.items() if not isinstance(each, list)]
    wrong = wrong or [name for name in ("images", "categories") if not lists[name]]
    if wrong:
        raise ConfigError(f"{path} is not in COCO's form: it lists no {', no '.join(wrong)}")
    return lists


def _listed(data: Mapping[str, Any], name: str, problems: _Problems) -> dict[Id, Entry]:
    """Images or categories by id, in the order of ids."""
    found: dict[Id, Entry] = {}
    for position, entry in enumerate(data[name]):
        number = entry.get("id") if isinstance(entry, dict) else None
        if not _is_id(number):
            problems.add(
                f"{name} whose id is no whole number or text", f"the one at {position}"
            )
        elif number in found:
            problems.add(f"{name} with an id used before", number)
        else:
            found[number] = entry
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _is_id(value: object) -> TypeGuard[Id]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _names(entries: Mapping[Id, Entry], key: str, what: str, problems: _Problems) -> list[str]:
    """What each of the entries is called, "" where it is not."""
    found = [e[key] if isinstance(e.get(key), str) else "" for e in entries.values()]
    unnamed = (k for k, name in zip(entries, found, strict=True) if not name)
    problems.add_all(f"{what} without a {key}", unnamed)
    return found


def _without_root(categories: dict[Id, Entry], annotations: Sequence[Any]) -> dict[Id, Entry]:
    """Without what Roboflow puts above the classes, of which there are no objects."""
    said = [a.get("category_id") for a in annotations if isinstance(a, dict)]
    used = set(filter(_is_id, said))

    def is_root(number: Id, category: Entry) -> bool:
        parents = [c.get("supercategory") for k, c in categories.items() if k != number]
        is_parent = category.get("supercategory") == "none" and category.get("name") in parents
        return is_parent and number not in used

    return {k: c for k, c in categories.items() if not is_root(k, c)}


@dataclass(frozen=True)
class _Known:
    """What annotations may speak of."""

    images: Mapping[Id, Entry]
    categories: Mapping[Id, Entry]
    ids: set[Any] = field(default_factory=set)  # of annotations so far


def _is_box(a: Entry, _: _Known) -> bool:
    box = a.get("bbox")
    return isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))


def _is_finite(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < LARGEST  # type: ignore[arg-type]  # not of NaN


def _is_inside(a: Entry, known: _Known) -> bool:
    """Whether a part of the box is, as far as the size of the image is known."""
    x, y, width, height = a["bbox"]
    size = _size(known.images[a["image_id"]]) or (LARGEST, LARGEST)
    return x <= size[0] and y <= size[1] and x + width >= 0 and y + height >= 0


def _is_new(a: Entry, known: _Known) -> bool:
    number, count = a.get("id"), len(known.ids)
    if number is None:
        return True
    known.ids.add(number if _is_id(number) else str(number))
    return len(known.ids) > count


# what is wrong with an annotation of which the test is not true: the first is told
_TESTS: dict[str, Callable[[Any, _Known], bool]] = {
    "annotations that are no objects of JSON": lambda a, _: isinstance(a, dict),
    "annotations with an id used before": _is_new,
    "annotations of an image that is not listed": (
        lambda a, known: _is_id(a.get("image_id")) and a["image_id"] in known.images
    ),
    "annotations of a category that is not listed": (
        lambda a, known: _is_id(a.get("category_id")) and a["category_id"] in known.categories
    ),
    "annotations whose bbox is not x, y, width, height": _is_box,
    "annotations whose bbox has a negative size": lambda a, _: min(a["bbox"][2:]) >= 0,
    "annotations whose bbox lies outside of the image": _is_inside,
    "annotations whose area is no number of pixels": (
        lambda a, _: a.get("area") is None or (_is_finite(a["area"]) and a["area"] >= 0)
    ),
    "annotations whose iscrowd is neither 0 nor 1": lambda a, _: a.get("iscrowd", 0) in (0, 1),
}


def _objects(
    annotations: Sequence[Any],
    images: Mapping[Id, Entry],
    categories: Mapping[Id, Entry],
    problems: _Problems,
) -> dict[Id, list[Entry]]:
    """The annotations of each image."""
    known = _Known(images, categories)
    found: dict[Id, list[Entry]] = defaultdict(list)
    for position, annotation in enumerate(annotations):
        wrong = next((what for what, test in _TESTS.items() if not test(annotation, known)), "")
        if wrong:
            said = annotation.get("id") if isinstance(annotation, dict) else None
            problems.add(wrong, f"the one at {position}" if said is None else f"id {said}")
        else:
            found[annotation["image_id"]].append(annotation)
    return found


def _has_possible_size(image: Entry) -> bool:
    """Whether width and height are whole numbers, as floats too, or are not known."""
    sides = [s for s in (image.get("width"), image.get("height")) if s is not None]
    return all(_is_finite(side) and side >= 0 and side == int(side) for side in sides)


def _size(image: Entry) -> tuple[int, int] | None:
    """The width and height, None if one of them is not known: not given, or 0."""
    width, height = image.get("width") or 0, image.get("height") or 0
    known = _has_possible_size(image) and min(width, height) > 0
    return (int(width), int(height)) if known else None


def _image(
    folder: Path, image: Entry, objects: Sequence[Entry], index: Mapping[Id, int]
) -> CocoImage:
    kept = [a for a in objects if min(a["bbox"][2:]) > 0]
    boxes = np.array([a["bbox"] for a in kept], np.float64).reshape(-1, 4)
    said = [a.get("area") for a in kept]
    areas = [w * h if s is None else s for s, (w, h) in zip(said, boxes[:, 2:], strict=True)]
    return CocoImage(
        image["id"],
        str(folder / image["file_name"]),
        _size(image),
        boxes,
        np.array([index[a["category_id"]] for a in kept], np.int64),
        np.array(areas, np.float64),
        np.array([a.get("iscrowd", 0) for a in kept], bool),
    )


def _notes(images: Mapping[Id, Entry], objects: Mapping[Id, Sequence[Entry]]) -> list[str]:
    boxes = [(_size(images[k]), a["bbox"]) for k, found in objects.items() for a in found]
    empty = sum(min(box[2:]) == 0 for _, box in boxes)
    beyond = sum(size is not None and _reaches_beyond(box, size) for size, box in boxes)
    told = (
        (empty, "without any width or height are left out"),
        (beyond, "reach beyond their image"),
    )
    return [f"{count:,} boxes {what}" for count, what in told if count]


def _reaches_beyond(box: Sequence[float], size: tuple[int, int]) -> bool:
    x, y, width, height = box
    past = max(-x, -y, x + width - size[0], y + height - size[1])
    return past > BEYOND
