"""What ``ondevice evaluate`` has in common for all tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import ConfigError, ImageError
from ._images import Skipped
from ._output import progress

if TYPE_CHECKING:
    from converters.program import Program

    from ..config import Preprocess
    from ..tasks.detection.coco import CocoSet
    from ..tasks.segmentation.masks import MaskSet
    from ..tasks.train.dataset import Sample

T = TypeVar("T")
S = TypeVar("S", "CocoSet", "MaskSet")
SPLITS = ("test", "val", "", "train")  # the first that there is


@dataclass(frozen=True)
class Opened:
    """A model or a package, and what it was called on the command line."""

    name: str
    model: Any = None
    package: Program | None = None

    @classmethod
    def of(cls, name: str) -> Opened:
        """A package by its suffix, or a model."""
        from converters.backend import BACKENDS, COMPILED

        from ..tasks.load import load

        if Path(name).suffix in {*BACKENDS, *COMPILED}:
            from converters.backend import load_package

            return cls(name, package=load_package(name))
        return cls(name, load(name))

    @property
    def gives(self) -> set[str]:
        """The kinds of what comes out or, of a package, the names."""
        if self.package is not None:
            return {*self.package.outputs}
        signature = getattr(self.model, "signature", None)
        return {output.kind for output in signature.outputs} if signature else set()


@dataclass(frozen=True)
class Evaluated:
    """What was measured of each model and between them, and what shows it: both functions are
    called with the two."""

    evaluations: Sequence[Any]
    comparisons: Sequence[Any]
    print: Callable[[Any, Any], None]
    to_html: Callable[[Any, Any], str]
    skipped: Skipped
    total: int  # images

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "models": [each.to_dict() for each in self.evaluations],
            "comparisons": [asdict(each) for each in self.comparisons],
            "skipped": self.skipped.problems,
        }


def evaluated(
    measure: Callable[[Skipped], tuple[Sequence[Any], Sequence[Any]]],
    total: int,
    print: Callable[[Any, Any], None],
    to_html: Callable[[Any, Any], str],
) -> Evaluated:
    """What ``measure`` finds in ``total`` images, of which it says what it skips.

    Raises ConfigError, ImageError.
    """
    skipped = Skipped()
    try:
        evaluations, comparisons = measure(skipped)
    except ImageError:  # no image at all: each has its reason
        skipped.check(total)
        raise
    return Evaluated(evaluations, comparisons, print, to_html, skipped, total)


def print_differences(figure: str, comparisons: Sequence[Any]) -> None:
    """What a figure differs by, and how sure that is."""
    for c in comparisons:
        if c.difference is not None:
            click.echo(
                f"\n{figure} of {c.second} less that of {c.first}: {c.difference:+.3f} "
                f"(95 % interval {c.low:+.3f} to {c.high:+.3f})"
            )


def looking(images: Sequence[T]) -> Iterator[T]:
    """Themselves, with a line on a terminal that says how far it is."""
    return progress(images, "looking", len(images))


def tell_split(images: Path, split: str) -> None:
    """Say which part of the images is taken, if it has a name."""
    if split:
        click.echo(f"{images}: images for {split}", err=True)


def unseen(samples: list[Sample], opened: Sequence[Opened]) -> list[Sample]:
    """Without the images that a saved folder was trained on, which would flatter it."""
    from ..tasks.train.dataset import unseen

    for name in (each.name for each in opened):
        left = unseen(samples, Path(name))
        if not left:
            click.echo(f"warning: {name} was trained on all of these images", err=True)
        elif len(left) < len(samples):
            count = len(samples) - len(left)
            click.echo(f"{name} was trained on {count:,} of the images: left out", err=True)
        samples = left or samples
    return samples


def without_seen(given: S, opened: Sequence[Opened]) -> S:
    """A set, whose ``images`` have paths, as ``unseen`` leaves it."""
    from ..tasks.train.dataset import Sample

    left = {s.path for s in unseen([Sample(i.path, 0) for i in given.images], opened)}
    return replace(given, images=tuple(i for i in given.images if i.path in left))


def image_input(package: Program) -> tuple[str, tuple[int, ...]]:
    """The name of the one image that a package takes, and its height and width.

    Raises ConfigError if it takes anything else.
    """
    images = {n: package.as_image(f) for n, f in package.inputs.items()}
    shapes = [(n, f.shape) for n, f in images.items() if f.kind == "image"]
    if len(shapes) != 1 or len(images) != 1 or package.preprocess is None:
        takes = ", ".join(map(str, package.inputs.values())) or "nothing"
        raise ConfigError(f"{package.path} takes {takes}; one image is expected")
    return shapes[0]


def contract_input(package: Program) -> tuple[str, Preprocess]:
    """The name of the one image that a package takes, and the contract at its size.

    Raises ConfigError if it takes anything else.
    """
    image, (side, _) = image_input(package)
    contract = package.preprocess
    assert contract is not None  # see image_input
    return image, replace(contract, size=side)
