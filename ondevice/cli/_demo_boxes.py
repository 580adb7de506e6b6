"""What ``ondevice demo`` does with a detector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _demo_dense

if TYPE_CHECKING:
    from converters.verification.verify import Report

    from .demo import Sides

ORIGIN, VALUE = _demo_dense.ORIGIN, "score"
example = _demo_dense.example
find = partial(_demo_dense.find, kind="boxes")
find_in_package = partial(_demo_dense.find_in_package, kind="boxes")


def default_model() -> str:
    """The first detector that ships. Raises ConfigError if none does."""
    from ..nn.detection import Detector

    return _demo_dense.shipped(Detector, "detector")


def sides(network: Any, images: Mapping[str, Any], ours: Any, theirs: Any) -> Iterator[Sides]:
    """The objects of both, the surest first, side by side."""
    for name, *found in zip(images, ours, theirs, strict=True):
        both = [[(d.label, float(d.score)) for d in objects] for objects in found]
        for mine, package in zip_longest(*both):
            yield name, mine, package


def draw(network: Any, images: Mapping[str, Any], theirs: Any, out: Path) -> list[Path]:
    """The package's boxes on each image, as a PNG in ``out``. Raises OutputError."""
    from ..tasks.draw import draw_boxes

    return _demo_dense.draw(images, theirs, out, "boxes", draw_boxes)


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """How close the package is."""
    matched = report.comparisons[0].of_kind["matched"]
    yield "same boxes", f"{matched:.0%} (gate {report.gates['matched']:.0%})"
