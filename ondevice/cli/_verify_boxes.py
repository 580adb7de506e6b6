"""What ``ondevice verify`` does with objects: average precision of both sides."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ImageError
from ._evaluate_boxes import BOXES, coco_set, package_detector, tell_other_classes
from ._evaluated import looking
from ._images import Skipped, spread
from ._output import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.program import Program


class Objects:
    """A set in COCO's form, of which at most ``limit`` images are looked at."""

    def __init__(self, source: str, limit: int) -> None:
        """Raises ConfigError."""
        coco = coco_set(Path(source))
        self.coco = replace(coco, images=tuple(spread(coco.images, limit)))
        self.paths = [image.path for image in self.coco.images]

    def detectors(self, model: Any, package: Program) -> list[Any]:
        """Both sides. Raises ConfigError if one cannot be measured on this set."""
        from ..tasks.detection.evaluate import class_order, model_detector

        found = [model_detector(model), package_detector(package, package.path.name)]
        for detector in found:
            class_order(detector, self.coco)
        tell_other_classes(found[:1], self.coco)
        return found

    def measure(self, detectors: list[Any], skipped: Skipped) -> dict[str, Any]:
        """Their APs, the difference, and its 95 % interval."""
        from ..tasks.detection.evaluate import evaluate

        def skip(position: int, error: ImageError) -> None:
            skipped.found.setdefault(position, error)

        (ours, theirs), (comparison,) = evaluate(detectors, self.coco, skip, looking)
        aps = {
            "images": ours.images,
            "model": ours.figures["AP"],
            "package": theirs.figures["AP"],
        }
        kept = ("difference", "low", "high")
        return aps | {name: asdict(comparison)[name] for name in kept}


def objects_in(
    package: Program, source: str | None, max_level: float | None, limit: int
) -> Objects | None:
    """The set that ``source`` is, of a package that finds boxes. Raises ConfigError."""
    from ..tasks.detection.coco_files import is_coco

    if source is None or BOXES not in package.outputs or not is_coco(source):
        return None
    if max_level is not None:
        raise ConfigError(f"--max-level does not go with {source}, a set in COCO's form")
    return Objects(source, limit)


def precision_text(found: Mapping[str, Any]) -> str:
    """A line about what ``measure`` gave."""
    images = counted(found["images"], "image")
    if found["difference"] is None:
        return f"AP: no objects in {images}"
    return (
        "AP {model:.3f} by the model, {package:.3f} by the package: {difference:+.3f} (95 % "
        "interval {low:+.3f} to {high:+.3f}, {counted})".format(**found, counted=images)
    )
