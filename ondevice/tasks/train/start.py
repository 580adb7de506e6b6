"""The model that training starts from: a known one, with a new head for these classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from ...config import ModelInfo
from ...errors import ConfigError
from ...nn.adapter import NAME, add_adapters
from ...registry import ModelSpec, model_spec
from ...weights.folder import create_model, is_folder, model_info

HEAD = "head."
SPREAD = 0.02  # of a new head's weights


def new_model(
    name: str,
    classes: Sequence[str],
    *,
    size: int | None = None,
    pretrained: bool = True,
    adapter: int = 0,
    seed: int = 0,
) -> nn.Module:
    """The model ``name`` with a head for ``classes``, whose weights alone are new.

    They are kept as well if ``name`` was trained for these very classes. It sees whole photos:
    a ``source_size`` that would reduce them first falls away.

    ``size`` of its input in pixels replaces the contract's. Without ``pretrained`` all weights
    are random. The licence is that of the weights it started from, random ones have none.

    With ``adapter`` it has adapters of that rank, new ones unless ``name`` has them already.

    Raises ConfigError, UnknownModelError, WeightsError, HubError.
    """
    base = create_model(name, pretrained=pretrained and not is_folder(name))
    mx.random.seed(seed)
    spec, known = model_spec(base.info.model), base.info
    _check(spec, base, size)
    changes: dict[str, Any] = {"num_classes": len(classes)}
    fields = known.config.to_dict()
    changes |= {k: v for k, v in {"head_bias": True, "tokens": False}.items() if k in fields}
    config = type(known.config).from_dict({**fields, **changes})
    size = size or known.preprocess.size
    preprocess = replace(known.preprocess, size=size, source_size=None)
    model = spec.build(config)
    adapter = _adapter(known, adapter)
    if adapter:
        add_adapters(model, adapter)
    if pretrained:
        _take_weights(model, base)
    if not pretrained or known.labels != tuple(classes):
        layer = linear(model)
        layer.weight = mx.random.normal(layer.weight.shape) * SPREAD
        layer.bias = mx.zeros(len(classes))
    model.info = ModelInfo(
        model=known.model,
        config=config,
        preprocess=preprocess,
        labels=tuple(classes),
        license=known.license if pretrained else "unknown",
        provenance=_provenance(known) if pretrained else f"{known.model} from random weights.",
        adapter=adapter,
    )
    mx.eval(model.parameters())
    return model.eval()


def _adapter(known: ModelInfo, rank: int) -> int:
    """The rank of the new model's adapters. Raises ConfigError."""
    if rank and known.adapter not in (0, rank):
        raise ConfigError(f"{known.name} has adapters of rank {known.adapter}, not {rank}")
    return rank or known.adapter


def check_start(name: str) -> None:
    """Raises what ``new_model`` would of a name, before images are read."""
    if model_spec(model_info(name).model).text:
        raise ConfigError(f"{name} has no classifier to train: it compares images with texts")


def _check(spec: ModelSpec, base: nn.Module, size: int | None) -> None:
    name = base.info.name
    if spec.text:
        raise ConfigError(f"{name} has no classifier to train: it compares images with texts")
    if "head" not in base:
        raise ConfigError(
            f"{name} has no head, so no classes to train; `ondevice list` has models with one"
        )
    if size is not None:
        check_size("size", size, base.info)


def check_size(option: str, size: int, info: ModelInfo) -> None:
    """Raises ConfigError if a model cannot take images of ``size`` pixels."""
    spec, native = model_spec(info.model), info.preprocess.size
    if spec.fixed_size and size != native:
        raise ConfigError(f"{option} is {size}, but {info.name} takes {native}")
    if size % spec.stride:
        raise ConfigError(
            f"{option} is {size}, but {info.name} takes multiples of {spec.stride}"
        )


def _take_weights(model: nn.Module, base: nn.Module) -> None:
    """The weights of ``base``; of its head those whose shapes are the same."""
    given = dict(tree_flatten(base.parameters()))
    own = dict(tree_flatten(model.parameters()))
    same = {k: given[k] for k, v in own.items() if k in given and given[k].shape == v.shape}
    new = [k for k in own if k not in same and not k.startswith(HEAD)]
    if lost := [k for k in new if f".{NAME}." not in k]:
        raise ConfigError(f"{base.info.name} lacks {', '.join(lost[:4])}")
    model.update(tree_unflatten(list(same.items())))


def linear(model: nn.Module) -> nn.Linear:
    """The last layer of a classifier."""
    layer: nn.Linear = getattr(model.head, "linear", model.head)
    return layer


def head_input(model: nn.Module, x: mx.array) -> mx.array:
    """(B, H, W, 3) image to the (B, C) vector that the last layer reads."""
    y: mx.array = model.pooled(x)
    return model.head.bn(y) if "bn" in model.head else y


def _provenance(base: ModelInfo) -> str:
    source = f", {base.source}" if base.source else ""
    return f"Trained further from {base.name} (licence {base.license}{source})."
