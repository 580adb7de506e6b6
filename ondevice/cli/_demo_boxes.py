"""What ``ondevice demo`` does with a detector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from converters.program import Program
    from converters.verification.verify import Report

    from ..signature.decode import Detection

ORIGIN = "Shapes on a background, both drawn by a program of ours"


def default_model() -> str:
    """The first detector that ships. Raises ConfigError if none does."""
    from ..nn.detection import Detector
    from ..registry import list_models, model_spec

    for spec in map(model_spec, list_models()):
        if isinstance(spec.build, type) and issubclass(spec.build, Detector):
            for checkpoint in spec.checkpoints:
                if checkpoint.is_shipped:
                    return f"{spec.name}.{checkpoint.tag}"
    raise ConfigError("no detector ships with this version; give one with --model NAME")


def example() -> dict[str, Any]:
    """Drawn shapes by the name of their image."""
    from ..image.open import open_image
    from ..tasks import detection

    return {"shapes": open_image(Path(detection.__file__).with_name("shapes.jpg"))}


def find(network: Any, images: Mapping[str, Any]) -> list[list[Detection]]:
    """The objects in each image, by MLX."""
    from ..nn.fuse import fuse
    from ..tasks.dense import predict

    return [result.found for result in predict(fuse(network), images.values(), "boxes")]


def find_in_package(
    network: Any, package: Program, images: Mapping[str, Any]
) -> list[list[Detection]]:
    """The objects in each image, by the package."""
    from ..tasks.dense import of_kind

    signature = of_kind(network, "boxes")
    name = next(output.name for output in signature.outputs if output.kind == "boxes")
    found = []
    for image in images.values():
        outputs = package.predict({"image": package.resize_and_crop(image)})
        found.append(signature.decode(outputs, [image.size])[name][0])
    return found


def sides(images: Mapping[str, Any], ours: Any, theirs: Any) -> Iterator[tuple[str, ...]]:
    """The objects of both, the surest first, side by side."""
    for name, mine, package in zip(images, ours, theirs, strict=True):
        for pair in zip_longest(mine, package):
            cells = [(d.label, f"{d.score:.2%}") if d else ("", "") for d in pair]
            yield name, *cells[0], *cells[1]
            name = ""


def draw(images: Mapping[str, Any], theirs: Any, out: Path) -> list[Path]:
    """What the package found, as a PNG of each image in ``out``. Raises OutputError."""
    from ..tasks.draw import draw_boxes
    from ..weights.output import replacing

    paths = []
    for number, (name, image, found) in enumerate(
        zip(images, images.values(), theirs, strict=True), start=1
    ):
        stem = Path(name).stem if len(images) == 1 else f"{Path(name).stem}-{number}"
        paths.append(out / f"{stem}.png")
        with replacing(paths[-1], force=True) as partial:
            draw_boxes(image, found).save(partial, format="PNG")
    return paths


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """How close the package is."""
    matched = report.comparisons[0].of_kind["matched"]
    yield "same boxes", f"{matched:.0%} (gate {report.gates['matched']:.0%})"
