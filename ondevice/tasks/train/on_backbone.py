"""What training starts from where a head of another kind stands on a classifier's backbone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from ...config import ModelInfo
from ...errors import ConfigError
from ...registry import ModelSpec, model_spec, parse_name
from ...weights.folder import create_model, is_folder, model_info
from .zoom import Zoom

if TYPE_CHECKING:
    from .dataset import Dataset
    from .options import Options
    from .task import Task
    from .trainer import Loss, Settings


def _as_built(model: nn.Module) -> None:
    """Random weights are those that the layers were made with."""


@dataclass(frozen=True)
class Kind:
    """A kind of model: ``base`` is the class of all, ``on_backbone`` matches the names of those
    that a new one can be made of, and ``scores``, a regex, the parameters of what scores
    classes. ``initialize`` is called with a model of random weights."""

    name: str
    base: type[nn.Module]
    on_backbone: str
    scores: str
    initialize: Callable[[nn.Module], None] = _as_built

    def new(
        self,
        name: str,
        classes: Sequence[str],
        *,
        backbone: str = "",
        size: int | None = None,
        pretrained: bool = True,
        seed: int = 0,
    ) -> nn.Module:
        """The model ``name`` for ``classes``.

        A folder, a tag or weights on the hub are gone on with; what scores its classes is new
        unless they are these very ones. The bare name of one on a backbone is a new one: its
        backbone has the weights of the classifier ``backbone``, by default those that the
        registry names first, and images are normalized as for that. Without ``pretrained`` all
        is random. ``size`` of its input in pixels replaces the contract's.

        Raises ConfigError, UnknownModelError, WeightsError, HubError.
        """
        self.check(name, backbone, size)
        mx.random.seed(seed)
        if not pretrained:
            model = self._built(model_info(name), classes)
            model.info = replace(
                model.info, license="unknown", provenance=f"{name} from random weights."
            )
        elif _own_backbone(name):
            model = self._with_backbone(name, classes, backbone)
        else:
            model = self._further(name, classes)
        contract = model.info.preprocess
        preprocess = replace(contract, size=size or contract.size)
        model.info = replace(model.info, preprocess=preprocess)
        mx.eval(model.parameters())
        return model.eval()

    def check(self, name: str, backbone: str, size: int | None) -> None:
        """Raises ConfigError for what no training can start from, before anything is
        fetched."""
        info = model_info(name)
        if not self._is_trainable(model_spec(info.model)):
            raise ConfigError(
                f"{info.name} is no {self.name} to train; `ondevice list "
                f"'{self.on_backbone}'` has some"
            )
        if size is not None and size % info.config.stride:
            raise ConfigError(
                f"size is {size}, but {name} takes multiples of {info.config.stride}"
            )
        if not backbone:
            return
        own = _own_backbone(name)
        if not own:
            raise ConfigError(
                f"{name} has a trained backbone: a backbone is for {self.on_backbone}"
            )
        if (given := model_info(backbone).model) != own:
            raise ConfigError(f"{backbone} is of {given}, but {name} is on {own}")

    def _is_trainable(self, spec: ModelSpec) -> bool:
        return isinstance(spec.build, type) and issubclass(spec.build, self.base)

    def _built(self, known: ModelInfo, classes: Sequence[str]) -> nn.Module:
        """One of random weights."""
        config = replace(known.config, num_classes=len(classes))
        model = model_spec(known.model).build(config)
        self.initialize(model)
        model.info = ModelInfo(
            model=known.model,
            config=config,
            preprocess=known.preprocess,
            labels=tuple(classes),
            license=known.license,
        )
        return model

    def _with_backbone(self, name: str, classes: Sequence[str], backbone: str) -> nn.Module:
        """A new one on the weights of a classifier, whose head and colours are its own."""
        trained = backbone or _own_backbone(name)
        classifier = create_model(trained, pretrained=not is_folder(trained))
        known, model = classifier.info, self._built(model_spec(name).info(), classes)
        found = dict(tree_flatten(classifier.parameters()))
        own = dict(tree_flatten(model.backbone.parameters()))
        model.backbone.update(tree_unflatten([(k, found[k]) for k in own]))
        colours = {"mean": known.preprocess.mean, "std": known.preprocess.std}
        model.info = replace(
            model.info,
            preprocess=replace(model.info.preprocess, **colours),
            license=known.license,
            provenance=f"{name}, its backbone from {known.name} (licence {known.license}). "
            f"{known.provenance}".strip(),
        )
        return model

    def _further(self, name: str, classes: Sequence[str]) -> nn.Module:
        """One that goes on from the weights ``name``."""
        base = create_model(name, pretrained=not is_folder(name))
        known, model = base.info, self._built(base.info, classes)
        found, own = (dict(tree_flatten(m.parameters())) for m in (base, model))
        if known.labels != tuple(classes):  # as many of other classes are others
            found = {k: v for k, v in found.items() if not re.search(self.scores, k)}
        model.update(tree_unflatten([(k, found.get(k, v)) for k, v in own.items()]))
        source = f", {known.source}" if known.source else ""
        said = f"Trained further from {known.name} (licence {known.license}{source})."
        model.info = replace(model.info, provenance=said)
        return model


def _own_backbone(name: str) -> str:
    """The backbone of a new model; "" of one that goes on from weights."""
    if is_folder(name) or parse_name(name)[1]:
        return ""
    return getattr(model_spec(name).config, "backbone", "")


@dataclass(frozen=True)
class Parts:
    """What training needs of a task with models of a ``kind``: how images are read with their
    ``labels``, how both are changed, and what a ``task`` makes of them by a ``loss``."""

    kind: Kind
    labels: str
    read: Callable[..., Dataset]
    augment: type[Zoom]
    task: Callable[..., Task]
    loss: Loss

    def prepare(
        self, images: Path, options: Options, settings: Settings
    ) -> tuple[nn.Module, Dataset, Zoom, Task]:
        """The model, the images, how they are changed, and the task.

        Raises ConfigError with what is wrong, UnknownModelError, WeightsError, HubError.
        """
        self.kind.check(options.model, options.backbone, options.size)
        augment = options.augment or self.augment()
        if not isinstance(augment, self.augment):
            given, wanted = type(augment).__name__, self.augment.__name__
            raise ConfigError(f"{given} changes no {self.labels}: use {wanted}")
        dataset = self.read(images, val_share=options.val_share, seed=settings.seed)
        model = self.kind.new(
            options.model,
            dataset.classes,
            backbone=options.backbone,
            size=options.size,
            pretrained=options.pretrained,
            seed=settings.seed,
        )
        spec, loss = model.info.preprocess, options.loss or self.loss
        task = self.task(dataset, spec, loss, options.workers)
        return model, dataset, replace(augment, flip=augment.flip and options.flip), task
