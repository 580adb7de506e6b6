"""The table of models: what exists, how it is built, where its weights are."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.nn as nn

from .config import ModelConfig, ModelInfo, Preprocess
from .errors import ConfigError, UnknownModelError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One published set of weights of a variant.

    ``repo`` is a Hugging Face repository; empty for weights that ship inside the package.
    ``config`` holds the hyper-parameters in which these weights differ from the variant.
    """

    tag: str
    repo: str
    file: str = "model.safetensors"
    license: str = "unknown"
    top1: float | None = None  # published ImageNet-1k accuracy, percent
    preprocess: Preprocess | None = None  # None: the variant's
    config: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""  # what a user should know, e.g. which contract was chosen and why


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything known about a variant."""

    name: str
    family: str
    build: Callable[[Any], nn.Module]
    config: ModelConfig
    preprocess: Preprocess
    checkpoints: tuple[Checkpoint, ...] = ()  # the default first
    fixed_size: bool = False  # only the preprocess size will do
    tower: str = ""  # regex: where keys start with it, these alone are the model's, without it
    renames: tuple[tuple[str, str], ...] = ()  # regex of an upstream key -> ours, all applied
    transposes: str = ""  # regex of upstream keys whose matrix is (in, out)
    adapt: Callable[[Shapes], dict[str, Any]] = lambda shapes: {}  # a file's keys -> config
    params: int | None = None  # parameters as published
    macs: int | None = None  # multiply-adds at the native size as published
    text: str = ""  # of an image encoder: the text encoder that shares its space
    part_of: str = ""  # the model that this is a part of, `list_models` leaves such out

    @property
    def stride(self) -> int:
        """Heights and widths of input images are multiples of this."""
        return self.config.stride

    def checkpoint(self, tag: str = "") -> Checkpoint:
        """The weights called ``tag``, or the default ones. Raises UnknownModelError."""
        found = [c for c in self.checkpoints if c.tag == tag or not tag]
        if not found:
            known = ", ".join(f"{self.name}.{c.tag}" for c in self.checkpoints) or "none"
            raise UnknownModelError(f"no weights {self.name}.{tag}; known: {known}")
        return found[0]

    def info(self, tag: str = "", **overrides: Any) -> ModelInfo:
        """What a model of this spec starts from: a published set of weights, or none."""
        known = self.checkpoint(tag) if tag or self.checkpoints else Checkpoint(tag="", repo="")
        try:
            config = replace(self.config, **{**known.config, **overrides})
        except TypeError as error:
            raise ConfigError(f"{self.name}: {error}") from error
        return ModelInfo(
            model=self.name,
            tag=tag,
            config=config,
            preprocess=known.preprocess or self.preprocess,
            license=known.license,
            source=f"https://huggingface.co/{known.repo}" if known.repo else "",
            top1=known.top1 if tag else None,
        )


_SPECS: dict[str, ModelSpec] = {}


def register_model(spec: ModelSpec) -> None:
    if spec.name in _SPECS:
        raise ValueError(f"model {spec.name!r} is already registered")
    _SPECS[spec.name] = spec


def model_spec(name: str) -> ModelSpec:
    """The spec of a variant; a tag after a dot is ignored. Raises UnknownModelError."""
    base = name.partition(".")[0]
    if base not in _SPECS:
        close = difflib.get_close_matches(base, _SPECS, n=3, cutoff=0.5) or sorted(_SPECS)[:3]
        raise UnknownModelError(
            f"no model {name!r}; did you mean {', '.join(close)}? `ondevice list` has them all"
        )
    return _SPECS[base]


def list_models(pattern: str = "*") -> list[str]:
    """Registered variants whose name matches a shell pattern, sorted."""
    listed = (name for name, spec in _SPECS.items() if not spec.part_of)
    return sorted(fnmatch.filter(listed, pattern))
