"""Results in the form of COCO's files: https://cocodataset.org/#format-data"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import Array
    from .decode import Detection


def categories(labels: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The ``count`` classes, whose ids are their numbers from 0."""
    return [
        {"id": i, "name": labels[i] if i < len(labels) else f"class {i}"} for i in range(count)
    ]


def box_annotations(
    found: Sequence[Detection], image: int, numbers: Iterator[int]
) -> list[dict[str, Any]]:
    """The objects of an image; ``numbers`` gives an id for each."""
    return [
        {
            "id": next(numbers),
            "image_id": image,
            "category_id": each.index,
            "bbox": [round(value, 2) for value in each.box],
            "area": round(each.box[2] * each.box[3], 2),
            "iscrowd": 0,
            "score": round(each.score, 5),
        }
        for each in found
    ]


def mask_annotations(mask: Array, image: int, numbers: Iterator[int]) -> list[dict[str, Any]]:
    """The classes in a (height, width) mask of an image, each as one run-length encoding."""
    import numpy as np

    found = []
    for number in np.unique(mask):
        inside = mask == number
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        x, y = int(columns[0]), int(rows[0])
        found.append(
            {
                "id": next(numbers),
                "image_id": image,
                "category_id": int(number),
                "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                "area": int(inside.sum()),
                "iscrowd": 1,
                "segmentation": {"size": list(mask.shape), "counts": _runs(inside)},
            }
        )
    return found


def _runs(inside: Array) -> list[int]:
    """The lengths of runs, outside first, going down the columns."""
    import numpy as np

    flat = inside.T.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths
