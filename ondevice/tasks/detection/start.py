"""The detector that training starts from: a known one, or a new one on a trained backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ...config import ModelInfo
from ...errors import ConfigError
from ...nn.deformable import DeformableAttention
from ...nn.detr import Detr
from ...registry import ModelSpec, model_spec, parse_name
from ...weights.folder import create_model, is_folder, model_info

RARE = 0.01  # what a new detector takes each class's share of the candidates to be


def new_detector(
    name: str,
    classes: Sequence[str],
    *,
    backbone: str = "",
    size: int | None = None,
    pretrained: bool = True,
    seed: int = 0,
) -> nn.Module:
    """The detector ``name`` for ``classes``.

    A folder, a tag or weights on the hub are gone on with; what scores its classes is new
    unless they are these very ones. The bare name of a light detector is a new one: its
    backbone has the weights of the classifier ``backbone``, by default those that the registry
    names first, and images are normalized as for that. Without ``pretrained`` all is random.
    ``size`` of its input in pixels replaces the contract's.

    Raises ConfigError, UnknownModelError, WeightsError, HubError.
    """
    check_detector(name, backbone, size)
    mx.random.seed(seed)
    if not pretrained:
        model = _built(model_info(name), classes)
        model.info = replace(
            model.info, license="unknown", provenance=f"{name} from random weights."
        )
    elif _own_backbone(name):
        model = _on_backbone(name, classes, backbone)
    else:
        model = _further(name, classes)
    contract = model.info.preprocess
    preprocess = replace(contract, size=size or contract.size)
    model.info = replace(model.info, preprocess=preprocess)
    mx.eval(model.parameters())
    return model.eval()


def check_detector(name: str, backbone: str, size: int | None) -> None:
    """Raises ConfigError for what no training can start from, before anything is fetched."""
    info = model_info(name)
    spec = model_spec(info.model)
    if not _is_trainable(spec):
        raise ConfigError(
            f"{info.name} is no detector to train; `ondevice list 'light_detr_*'` has some"
        )
    if size is not None and size % info.config.stride:
        raise ConfigError(f"size is {size}, but {name} takes multiples of {info.config.stride}")
    if not backbone:
        return
    own = _own_backbone(name)
    if not own:
        raise ConfigError(f"{name} has a trained backbone: a backbone is for light_detr_*")
    if (given := model_info(backbone).model) != own:
        raise ConfigError(f"backbone {backbone} is a {given}, but {name} is on {own}")


def _is_trainable(spec: ModelSpec) -> bool:
    return isinstance(spec.build, type) and issubclass(spec.build, Detr)


def _own_backbone(name: str) -> str:
    """The backbone of a new detector; "" of one that goes on from weights."""
    if is_folder(name) or parse_name(name)[1]:
        return ""
    return getattr(model_spec(name).config, "backbone", "")


def _built(known: ModelInfo, classes: Sequence[str]) -> nn.Module:
    """A detector of random weights."""
    config = replace(known.config, num_classes=len(classes))
    model = model_spec(known.model).build(config)
    initialize(model)
    model.info = ModelInfo(
        model=known.model,
        config=config,
        preprocess=known.preprocess,
        labels=tuple(classes),
        license=known.license,
    )
    return model


def _on_backbone(name: str, classes: Sequence[str], backbone: str) -> nn.Module:
    """A new one on the weights of a classifier, whose head and colours are its own."""
    trained = backbone or _own_backbone(name)
    classifier = create_model(trained, pretrained=not is_folder(trained))
    known, model = classifier.info, _built(model_spec(name).info(), classes)
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


def _further(name: str, classes: Sequence[str]) -> nn.Module:
    """One that goes on from the weights ``name``."""
    base = create_model(name, pretrained=not is_folder(name))
    known, model = base.info, _built(base.info, classes)
    found, own = (dict(tree_flatten(m.parameters())) for m in (base, model))
    if known.labels != tuple(classes):  # as many of other classes are others
        found = {k: v for k, v in found.items() if not _scores(k)}
    model.update(tree_unflatten([(k, found.get(k, v)) for k, v in own.items()]))
    source = f", {known.source}" if known.source else ""
    said = f"Trained further from {known.name} (licence {known.license}{source})."
    model.info = replace(model.info, provenance=said)
    return model


def _scores(key: str) -> bool:
    """Whether a parameter is of a layer that scores classes."""
    return "class_embed." in key or key.startswith("enc_score_head.")


def initialize(model: nn.Module) -> None:
    """Random weights to start from: a new detector gives its anchors, all of them unlikely,
    and its queries look evenly around themselves."""
    for layer in model.modules():
        if isinstance(layer, DeformableAttention):
            _look_around(layer)
    for head in (model.enc_bbox_head, *model.decoder.bbox_embed):
        last = head.layers[-1]
        last.weight, last.bias = mx.zeros_like(last.weight), mx.zeros_like(last.bias)
    for score in (model.enc_score_head, *model.decoder.class_embed):
        score.bias = mx.full(score.bias.shape, math.log(RARE / (1 - RARE)))


def _look_around(layer: DeformableAttention) -> None:
    """Each head in its own direction, each point further away, all of the same weight."""
    angles = np.arange(layer.heads) * (2 * np.pi / layer.heads)
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    ways /= np.abs(ways).max(axis=-1, keepdims=True)
    steps = np.arange(1, layer.points + 1)[:, None]
    places = np.tile(ways[:, None, None] * steps, (1, layer.levels, 1, 1))
    layer.sampling_offsets.bias = mx.array(places.ravel().astype(np.float32))
    for linear in (layer.sampling_offsets, layer.attention_weights):
        linear.weight = mx.zeros_like(linear.weight)
    layer.attention_weights.bias = mx.zeros_like(layer.attention_weights.bias)
