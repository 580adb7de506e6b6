"""What ``ondevice demo`` does with a model that names the class of each pixel."""

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

LEAST = 0.005  # the share of the pixels from which on a class is in the table
ORIGIN, VALUE = _demo_dense.ORIGIN, "pixels"
example = _demo_dense.example
find = partial(_demo_dense.find, kind="mask")
find_in_package = partial(_demo_dense.find_in_package, kind="mask")


def default_model() -> str:
    """The first that ships. Raises ConfigError if none does."""
    from ..nn.segmentation import Segmenter

    return _demo_dense.shipped(Segmenter, "model for masks")


def sides(network: Any, images: Mapping[str, Any], ours: Any, theirs: Any) -> Iterator[Sides]:
    """The classes of both with their shares of the image, the largest first, side by side."""
    for name, *masks in zip(images, ours, theirs, strict=True):
        for mine, package in zip_longest(*(_shares(network, mask) for mask in masks)):
            yield name, mine, package


def _shares(network: Any, mask: Any) -> list[tuple[str, float]]:
    import numpy as np

    labels = network.info.labels
    counts = np.bincount(mask.ravel()) / mask.size
    return [
        (labels[c] if labels else f"class {c}", float(counts[c]))
        for c in np.argsort(-counts, kind="stable").tolist()
        if counts[c] >= LEAST
    ]


def draw(network: Any, images: Mapping[str, Any], theirs: Any, out: Path) -> list[Path]:
    """The package's classes in colours over each image, as a PNG in ``out``. Raises
    OutputError."""
    from ..tasks.draw import draw_mask

    classes = network.info.config.num_classes

    def drawn(image: Any, mask: Any) -> Any:
        return draw_mask(image, mask, classes)

    return _demo_dense.draw(images, theirs, out, "mask", drawn)


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """How close the package is."""
    equal = report.comparisons[0].of_kind["equal_pixels"]
    yield "same pixels", f"{equal:.2%} (gate {report.gates['equal_pixels']:.1%})"
