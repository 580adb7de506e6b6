"""What the pages compute with: models and packages, as many as are in use."""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import mlx.nn as nn

from ...errors import ConfigError
from ...image.open import open_image
from ...signature import signature_of
from ...signature.samples import sample_images
from ...tasks.load import load

if TYPE_CHECKING:
    from PIL import Image

    from converters.compress.pareto import Front
    from converters.program import Program

    from ...tasks.clip import CLIP
    from ...tasks.embeddings.index import Index

T = TypeVar("T")

SHIPPED = (
    "shvit_nano.cifar10",
    "shvit_nano.flowers",
    "light_detr_shvit_nano.shapes",
    "light_fpn_shvit_nano.shapes",
)
PLAIN = "none"  # the recipe of a package that is not compressed
MODELS, PACKAGES = 3, 8  # that are kept
SAMPLES = 8  # test images, where no photos are given
THUMBNAIL = 160  # pixels
TARGET = "iOS18"  # whose packages can hold every recipe
DENSE = ("boxes", "depth", "mask")  # what is found at every position of a photo


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


@dataclass(frozen=True)
class Made:
    """A package, and of a search the sizes that were to be had."""

    package: Program
    front: Front | None = None

    @property
    def path(self) -> Path:
        """Where the package is."""
        return self.package.path


class Workshop:
    """Models and packages in ``folder``; whoever computes holds ``lock``, one at a time.

    ``names`` are the models that are offered, ``classifiers``, ``dense`` and ``clips`` those
    that give classes with names, boxes, depth or masks, and vectors of images and texts.
    """

    def __init__(
        self, folder: Path, models: Sequence[str] = (), index: Path | None = None
    ) -> None:
        """Raises what ``load`` raises for one of ``models``, ConfigError for the index."""
        self.folder, self.index_path = folder, index
        self.lock = threading.RLock()
        self._models = _Kept[nn.Module](MODELS)
        self._clips = _Kept["CLIP"](1)
        self._packages = _Kept["Made"](PACKAGES, lambda m: shutil.rmtree(m.path.parent))
        self._made = 0
        self.names = [*dict.fromkeys((*models, *SHIPPED))]
        if index is not None and self.index_model not in self.names:
            self.names.insert(0, self.index_model)
        kinds = {name: _kinds(self.model(name)) for name in self.names}
        self.classifiers = [name for name in self.names if "classes" in kinds[name]]
        self.dense = [name for name in self.names if kinds[name] & {*DENSE}]
        self.clips = [name for name in self.names if "texts" in kinds[name]]

    def model(self, name: str) -> nn.Module:
        """A model by its name. Raises ConfigError for one that is not offered."""
        if name not in self.names:
            raise ConfigError(f"{name!r} is not offered; start with --model {name}")
        with self.lock:
            return self._models.get(name, partial(load, name))

    def clip(self, name: str) -> CLIP:
        """Both encoders of a model of images and texts."""
        from ...tasks.clip import load_clip

        with self.lock:
            return self._clips.get(name, lambda: load_clip(name))

    @cached_property
    def index(self) -> Index:
        """The index that photos are looked for in. Raises ConfigError."""
        from ...tasks.embeddings.index import open_index

        if self.index_path is None:
            raise ConfigError("there is no index; start with --index FILE")
        return open_index(self.index_path)

    @cached_property
    def index_model(self) -> str:
        """The model that made the index. Raises ConfigError if none here has its weights."""
        from ...weights.hash import weights_hash

        for name in (*self.names, self.index.model):
            if weights_hash(self._models.get(name, partial(load, name))) == self.index.weights:
                return name
        raise ConfigError(
            f"{self.index_path} was made by {self.index.model} with weights that no model here "
            "has; start with the right --model"
        )

    def package(self, name: str, recipe: str = PLAIN) -> Program:
        """The package of a model in half precision, compressed by a preset."""
        with self.lock:
            made = self._packages.get((name, recipe), lambda: self._recipe(name, recipe))
        return made.package

    def within(self, name: str, percent: int, photos: Sequence[str]) -> Made:
        """The package with the best format for each layer, by every second of these photos
        (or test images), of at most ``percent`` of the size of the one not compressed.

        Raises ImageError, and ConfigError where nothing is as small.
        """
        with self.lock:
            key = name, percent, *photos
            return self._packages.get(key, lambda: self._search(name, percent, photos))

    def images(self, name: str, photos: Sequence[str], count: int = SAMPLES) -> list[Any]:
        """The photos, or as many test images if there are none. Raises ImageError."""
        if photos:
            return [open_image(path) for path in photos]
        return [*sample_images(self.model(name).info.preprocess.size, count)]

    def halves(self, name: str, photos: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """Images to search on, and others to measure on. Raises ImageError, ConfigError."""
        images = self.images(name, photos, 2 * SAMPLES)
        if len(images) < 2 * SAMPLES:
            raise ConfigError(
                f"{len(images)} photos; a search takes {2 * SAMPLES} or more, and measures on "
                "half of them. Without any photos it takes test images."
            )
        return images[::2], images[1::2]

    def _recipe(self, name: str, recipe: str) -> Made:
        if recipe == PLAIN:
            return self._make(name, recipe)
        return self._make(name, recipe, recipe=recipe, calibration=self.images(name, ()))

    def _search(self, name: str, percent: int, photos: Sequence[str]) -> Made:
        budget = self.package(name).size * percent // 100
        images, _ = self.halves(name, photos)
        return self._make(
            name, f"mixed-{percent}", budget=budget, calibration=images, front=True
        )

    def _make(self, name: str, suffix: str, **options: Any) -> Made:
        from converters.backend import load_package
        from converters.export import export

        self._made += 1
        path = self.folder / str(self._made) / f"{Path(name).name}.{suffix}.mlpackage"
        accounts: list[Any] = []
        export(self.model(name), path, target=TARGET, account=accounts.append, **options)
        return Made(load_package(path), accounts[0].front if accounts else None)


def _kinds(model: nn.Module) -> set[str]:
    """What a model is of use for: "classes", "texts", or kinds of its outputs."""
    from ...registry import model_spec

    signature = signature_of(model)
    outputs = signature.outputs if signature else ()
    kinds = {str(output.kind) for output in outputs}
    if any(output.is_classifier for output in outputs):
        kinds.add("classes")
    if model_spec(model.info.model).text:
        kinds.add("texts")
    return kinds


def scores(package: Program, pixels: Any) -> dict[str, float]:
    """The probabilities of a package by label, for pixels of its input's size."""
    outputs = package.predict({"image": pixels})
    found: dict[str, float] = outputs["classLabel_probs"]
    return {label: float(score) for label, score in found.items()}


def thumbnail(image: Image.Image, side: int = THUMBNAIL) -> Image.Image:
    """A small copy, whose longer side has ``side`` pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    return small
