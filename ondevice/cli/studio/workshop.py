"""What the page shows, computed: models and packages are kept, as many as are in use."""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import mlx.nn as nn

from ...errors import ConfigError
from ...image.open import open_image
from ...image.preprocess import resize_and_crop, steps
from ...signature.samples import sample_images
from ...tasks.classify import classify
from ...tasks.heat_map import heat_map, overlay
from ...tasks.load import load

if TYPE_CHECKING:
    from PIL import Image

    from converters.program import Program
    from converters.verification.inspect import Inspection

T = TypeVar("T")

SHIPPED = ("shvit_nano.cifar10", "shvit_nano.flowers")
PLAIN = "none"  # the recipe of a package that is not compressed
MODELS, PACKAGES = 3, 8  # that are kept
SAMPLES = 8  # test images, where no photos are given
THUMBNAIL, LARGE = 160, 448  # pixels
TARGET = "iOS18"  # whose packages can hold every recipe


@dataclass(frozen=True)
class Look:
    """One photo through a model and its packages: probabilities by label, and pictures."""

    model: dict[str, float]
    package: dict[str, float]
    compressed: dict[str, float]
    heat: Image.Image
    steps: list[tuple[Image.Image, str]]

    def apart(self, found: dict[str, float]) -> float:
        """The largest difference of a probability to the model's."""
        return max(abs(found[label] - score) for label, score in self.model.items())


@dataclass(frozen=True)
class Cost:
    """What a recipe saves and costs on some images; ``changed`` are those of another class."""

    recipe: str
    bytes: int
    psnr_db: float
    same_class: float
    changed: list[tuple[Image.Image, str]]
    package: Path


class _Kept(Generic[T]):
    """The things used last, ``most`` of them; ``drop`` is told of what is given up."""

    def __init__(self, most: int, drop: Callable[[T], object] = lambda thing: None) -> None:
        self.most, self.drop, self.things = most, drop, OrderedDict[Any, T]()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        found = self.things.pop(key, None)
        self.things[key] = found if found is not None else make()
        while len(self.things) > self.most:
            self.drop(self.things.popitem(last=False)[1])
        return self.things[key]


class Workshop:
    """Models and packages in ``folder``; one thing at a time, whoever asks."""

    def __init__(self, folder: Path, models: Sequence[str] = ()) -> None:
        self.folder = folder
        self.names = [*dict.fromkeys((*models, *SHIPPED))]
        self._lock = threading.RLock()
        self._models = _Kept[nn.Module](MODELS)
        self._packages = _Kept["Program"](PACKAGES, lambda p: shutil.rmtree(p.path.parent))
        self._made = 0

    def model(self, name: str) -> nn.Module:
        """A classifier by its name. Raises ConfigError for one that is not offered."""
        if name not in self.names:
            raise ConfigError(f"{name!r} is not offered; start with --model {name}")
        with self._lock:
            return self._models.get(name, lambda: load(name))

    def package(self, name: str, recipe: str = PLAIN) -> Program:
        """The package of a model in half precision, compressed by a preset."""
        with self._lock:
            return self._packages.get((name, recipe), lambda: self._make(name, recipe))

    def look(self, name: str, recipe: str, photo: str) -> Look:
        """A photo through a model, its package, and that compressed by ``recipe``."""
        with self._lock:
            model = self.model(name)
            image = open_image(photo)
            (best,) = classify(model, image, top_k=len(model.info.class_names) or 1000)
            pixels = resize_and_crop(image, model.info.preprocess)
            return Look(
                model={p.label: p.score for p in best},
                package=_scores(self.package(name), pixels),
                compressed=_scores(self.package(name, recipe), pixels),
                heat=overlay(_large(pixels), heat_map(model, image)),
                steps=[
                    (_thumbnail(made, 2 * THUMBNAIL), f"{step} {made.width}x{made.height}")
                    for step, made in steps(image, model.info.preprocess)
                ],
            )

    def costs(self, name: str, recipes: Sequence[str], photos: Sequence[str]) -> Iterator[Cost]:
        """Each recipe's cost, as it is known; on test images if there are no photos."""
        images: list[Any] = [open_image(p) for p in photos] or sample_images(
            self.model(name).info.preprocess.size, SAMPLES
        )
        for recipe in recipes:
            with self._lock:
                cost = self._cost(name, recipe, images)
            yield cost

    def inspection(self, name: str, recipe: str) -> Inspection:
        """What is in a package."""
        from converters.verification.inspect import inspect

        with self._lock:
            return inspect(self.package(name, recipe))

    def _make(self, name: str, recipe: str) -> Program:
        from converters.backend import load_package
        from converters.export import export

        self._made += 1
        path = self.folder / str(self._made) / f"{name.replace('/', '_')}.{recipe}.mlpackage"
        model = self.model(name)
        options: dict[str, Any] = {}
        if recipe != PLAIN:
            samples = sample_images(model.info.preprocess.size, SAMPLES)
            options = {"recipe": recipe, "calibration": samples}
        return load_package(export(model, path, target=TARGET, **options))

    def _cost(self, name: str, recipe: str, images: Sequence[Any]) -> Cost:
        from converters.verification.verify import verify

        model, package = self.model(name), self.package(name, recipe)
        (found,) = verify(model, package, images).comparisons[:1]
        changed = list(_changed(model, package, images))
        return Cost(
            recipe=recipe,
            bytes=package.size,
            psnr_db=found.psnr_db,
            same_class=1 - len(changed) / len(images),
            changed=changed,
            package=package.path,
        )


def _changed(
    model: nn.Module, package: Program, images: Sequence[Any]
) -> Iterator[tuple[Image.Image, str]]:
    """The images whose class the package changes, with both classes."""
    from PIL import Image

    for image in images:
        pixels = resize_and_crop(image, model.info.preprocess)
        scores = _scores(package, pixels)
        ((ours,),) = classify(model, image, top_k=1)
        theirs = max(scores, key=lambda label: scores[label])
        if theirs != ours.label:
            yield _thumbnail(Image.fromarray(pixels)), f"{ours.label} → {theirs}"


def _scores(package: Program, pixels: Any) -> dict[str, float]:
    outputs = package.predict({"image": pixels})
    found: dict[str, float] = outputs["classLabel_probs"]
    return {label: float(score) for label, score in found.items()}


def _large(pixels: Any) -> Any:
    """Pixel values as squares that can be seen."""
    times = max(LARGE // len(pixels), 1)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _thumbnail(image: Image.Image, side: int = THUMBNAIL) -> Image.Image:
    small = image.copy()
    small.thumbnail((side, side))
    return small
