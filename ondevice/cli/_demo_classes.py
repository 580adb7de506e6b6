"""What ``ondevice demo`` does with a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .classify import DEFAULT_MODEL

if TYPE_CHECKING:
    from converters.program import Program
    from converters.verification.verify import Report

    from .demo import Sides

ORIGIN = "Chelsea the cat: photo by Stefan van der Walt, CC0, from scikit-image"
VALUE = "score"


def default_model() -> str:
    """The classifier that ships."""
    return DEFAULT_MODEL


def example() -> dict[str, Any]:
    """A photo by its name. Raises ConfigError if scikit-image is missing."""
    try:
        from skimage import data
    except ImportError:
        raise ConfigError(
            "the demo's photo comes with scikit-image: pip install 'ondevice[demo]', "
            "or give a photo of your own: ondevice demo PHOTO"
        ) from None
    from PIL import Image

    return {"chelsea": Image.fromarray(data.chelsea())}


def find(network: Any, images: Mapping[str, Any]) -> list[Any]:
    """The best classes of each image, by MLX."""
    from ..nn.fuse import fuse
    from ..tasks.classify import classify

    return classify(fuse(network), list(images.values()))


def find_in_package(network: Any, package: Program, images: Mapping[str, Any]) -> list[Any]:
    """The scores of each image's classes, by the package."""
    pixels = map(package.resize_and_crop, images.values())
    return [package.predict({"image": image})["classLabel_probs"] for image in pixels]


def sides(network: Any, images: Mapping[str, Any], ours: Any, theirs: Any) -> Iterator[Sides]:
    """The best five of both, side by side."""
    for name, mine, scores in zip(images, ours, theirs, strict=True):
        best = sorted(scores, key=lambda label: -scores[label])
        for prediction, label in zip(mine, best, strict=False):
            yield name, (prediction.label, prediction.score), (label, float(scores[label]))


def draw(network: Any, images: Mapping[str, Any], theirs: Any, out: Path) -> list[Path]:
    """Nothing: a class has no place in an image."""
    return []


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """How close the package is."""
    (logits,) = report.comparisons
    yield "PSNR", f"{logits.psnr_db:.1f} dB (gate {report.gates['psnr_db']:g})"
    yield "max error", f"{logits.max_error:.2e}"
    yield "top-1 agreement", f"{logits.top1_agreement:.0%}"
