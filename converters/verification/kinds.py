"""What is measured of outputs by their kind: depth, masks of classes, 8-bit images.

Each figure is of one image and is averaged over all. Class numbers have no distance from each
other: no error of theirs is judged but the share of pixels that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ..graph.graph import Array

CLOSE = 1.25  # the ratio of two depths up to which they are counted as equal
FLOOR = 1e-3  # of the largest depth: what is less has no ratio to anything


def _depth(wanted: Array, got: Array) -> dict[str, float]:
    """The share of close pixels, and the mean error over the depth that was wanted."""
    a, b = (np.maximum(x.astype(np.float64), 0).ravel() for x in (wanted, got))
    known = a > FLOOR * a.max(initial=0)
    a, b = a[known], np.maximum(b[known], 1e-12)
    if not a.size:
        return {}
    ratio = np.maximum(a / b, b / a)
    return {
        "delta1": float((ratio < CLOSE).mean()),
        "abs_rel": float((np.abs(a - b) / a).mean()),
    }


def _mask(wanted: Array, got: Array) -> dict[str, float]:
    """The share of equal pixels, and the intersection over union, averaged over classes."""
    a, b = (_classes(x) for x in (wanted, got))
    both = np.intersect1d(a, b)
    shares = {c: float(((a == c) & (b == c)).sum() / ((a == c) | (b == c)).sum()) for c in both}
    count = len(np.union1d(a, b))
    return {
        "equal_pixels": float((a == b).mean()),
        "miou": sum(shares.values()) / max(count, 1),
    }


def _classes(mask: Array) -> Array:
    """(1, channels, H, W) numbers or colours as one whole number a pixel."""
    values = np.rint(mask.reshape(-1, *mask.shape[-2:])).astype(np.int64)
    return np.asarray(sum(plane << 8 * i for i, plane in enumerate(values)))


def _image(wanted: Array, got: Array) -> dict[str, float]:
    """The share of 8-bit values that are at most one apart: one may be a rounding."""
    return {"equal_levels": float((np.abs(wanted - got) < 1.5).mean())}


_MEASURES: dict[str, Callable[[Array, Array], dict[str, float]]] = {
    "depth": _depth,
    "image": _image,
    "mask": _mask,
}
# What outputs of a kind have to reach in a package of some precision, or a compressed one.
_GATES: dict[str, dict[str, Mapping[str, float]]] = {
    "depth": {
        "float32": {"delta1": 0.99},
        "float16": {"delta1": 0.99},
        "compressed": {"delta1": 0.9},
    },
    "image": {
        "float32": {"equal_levels": 0.995},
        "float16": {"equal_levels": 0.995},
        "compressed": {"equal_levels": 0.5},
    },
    "mask": {
        "float32": {"equal_pixels": 0.995},
        "float16": {"equal_pixels": 0.995},
        "compressed": {"equal_pixels": 0.9},
    },
    "boxes": {
        "float32": {"matched": 1.0},
        "float16": {"matched": 0.99},
        "compressed": {"alike": 0.8},
    },
}
OF_KINDS = ("delta1", "abs_rel", "equal_levels", "equal_pixels", "miou", "matched", "alike")
_SETS = frozenset({"boxes", "scores"})


def measured(
    kind: str, wanted: Array, got: Array, of_sets: Mapping[str, float]
) -> dict[str, float]:
    """What an output of one image is measured by beside its error; nothing of most kinds.
    ``of_sets`` are the figures of boxes and their scores together."""
    if kind in _SETS:
        return dict(of_sets)
    measure = _MEASURES.get(kind)
    return measure(wanted, got) if measure else {}


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over the images that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {n: float(np.mean([row[n] for row in rows if n in row])) for n in names}


def gates(kinds: Iterable[str], form: str) -> dict[str, float]:
    """The limits for outputs of these kinds, in a package of a precision or "compressed"."""
    tables = (_GATES.get(kind, {}) for kind in kinds)
    return {n: limit for table in tables for n, limit in table.get(form, {}).items()}


def is_judged(kind: str, of_kind: Mapping[str, float], metric: str) -> bool:
    """Whether a limit of ``metric`` is for outputs of this kind, which have figures of their
    own: classes, levels and sets are judged by those alone."""
    alone = kind in ("image", "mask") or (kind in _SETS and bool(of_kind))
    return not alone or metric in OF_KINDS
