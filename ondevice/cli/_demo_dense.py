"""What ``ondevice demo`` does with models whose results have a place in the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

    from converters.program import Program

    from ..signature import OutputKind

ORIGIN = "Shapes on a background, both drawn by a program of ours"


def shipped(base: type, said: str) -> str:
    """The first model that is a ``base`` and ships. Raises ConfigError if none does."""
    from ..registry import list_models, model_spec

    for spec in map(model_spec, list_models()):
        if isinstance(spec.build, type) and issubclass(spec.build, base):
            for checkpoint in spec.checkpoints:
                if checkpoint.is_shipped:
                    return f"{spec.name}.{checkpoint.tag}"
    raise ConfigError(f"no {said} ships with this version; give one with --model NAME")


def example() -> dict[str, Any]:
    """Drawn shapes by the name of their image."""
    from ..image.open import open_image
    from ..tasks import detection

    return {"shapes": open_image(Path(detection.__file__).with_name("shapes.jpg"))}


def find(network: Any, images: Mapping[str, Any], kind: OutputKind) -> list[Any]:
    """What MLX finds in each image."""
    from ..nn.fuse import fuse
    from ..tasks.dense import predict

    return [result.found for result in predict(fuse(network), images.values(), kind)]


def find_in_package(
    network: Any, package: Program, images: Mapping[str, Any], kind: OutputKind
) -> list[Any]:
    """What the package finds in each image."""
    from ..tasks.dense import of_kind

    signature = of_kind(network, kind)
    name = next(output.name for output in signature.outputs if output.kind == kind)
    found = []
    for image in images.values():
        outputs = package.predict({"image": package.resize_and_crop(image)})
        found.append(signature.decode(outputs, [image.size])[name][0])
    return found


def draw(
    images: Mapping[str, Any],
    found: Iterable[Any],
    out: Path,
    kind: OutputKind,
    drawn: Callable[[Any, Any], Image.Image],
) -> list[Path]:
    """``drawn(image, found)`` of each image, as ``NAME-kind.png`` in ``out``.

    Raises OutputError.
    """
    from ..weights.output import replacing

    paths = []
    for number, (name, image, each) in enumerate(
        zip(images, images.values(), found, strict=True), start=1
    ):
        stem = Path(name).stem if len(images) == 1 else f"{Path(name).stem}-{number}"
        paths.append(out / f"{stem}-{kind}.png")
        with replacing(paths[-1], force=True) as partial:
            drawn(image, each).save(partial, format="PNG")
    return paths
