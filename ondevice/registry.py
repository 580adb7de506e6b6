"""The table of models: what exists, how it is built, where its weights are."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.nn as nn

from .config import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    CropMode,
    ModelConfig,
    ModelInfo,
    Preprocess,
)
from .config.labels import IMAGENET1K, known_labels
from .errors import ConfigError, UnknownModelError

# How the config.json of a FastVLM calls itself: Apple's, and MLX's.
VLM_TYPES = ("llava_qwen2", "fastvlm", "fast_vlm")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One published set of weights of a variant.

    ``repo`` is a Hugging Face repository, ``url`` the authors' own file where the hub has none;
    weights without either ship inside the package. ``config`` holds the hyper-parameters in
    which these weights differ from the variant.
    """

    tag: str
    repo: str = ""
    url: str = ""
    file: str = "model.safetensors"
    license: str = "unknown"
    top1: float | None = None  # published ImageNet-1k accuracy, percent
    preprocess: Preprocess | None = None  # None: the variant's
    config: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""  # what a user should know, e.g. which contract was chosen and why
    labels: str = ""  # whose classes these are: a name that ``known_labels`` takes, or ""

    @property
    def is_shipped(self) -> bool:
        """Whether the weights are inside the package."""
        return not (self.repo or self.url)

    @property
    def source(self) -> str:
        """Where they come from; "" of what ships."""
        return f"https://huggingface.co/{self.repo}" if self.repo else self.url


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
    key_prefix: str = ""  # regex: keep only keys with this prefix, and strip it
    renames: tuple[tuple[str, str], ...] = ()  # regex of an upstream key -> ours, all applied
    unused: str = ""  # regex of upstream keys that inference has no use for
    copies: str = ""  # regex of upstream keys whose arrays mostly stand under another key, too
    splits: tuple[
        tuple[str, tuple[str, ...]], ...
    ] = ()  # regex of a key -> the keys of its parts
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
        if not self.checkpoints:
            raise UnknownModelError(
                f"no weights of {self.name} are on the hub; a file of them becomes a model by "
                f"`ondevice import FILE --model {self.name} --out FOLDER`"
            )
        if not found:
            known = ", ".join(f"{self.name}.{c.tag}" for c in self.checkpoints)
            raise UnknownModelError(f"no weights {self.name}.{tag}; known: {known}")
        return found[0]

    def info(self, tag: str = "", **overrides: Any) -> ModelInfo:
        """What the published weights called ``tag`` are; without one, of random weights."""
        info = self.contract(tag, **overrides)
        if not tag:
            return info
        known = self.checkpoint(tag)
        whole = info.config.num_classes == self.contract(tag).config.num_classes
        return replace(
            info,
            tag=tag,
            labels=known_labels(known.labels) if whole and known.labels else (),
            source=known.source,
            top1=known.top1 if whole else None,
        )

    def contract(self, tag: str = "", **overrides: Any) -> ModelInfo:
        """What weights in place of the published ones share with them, and nothing else.

        That is how the model is built, how it takes images, and the licence, which weights
        trained further still are under. Raises ConfigError for an impossible override.
        """
        known = self.checkpoint(tag) if tag or self.checkpoints else Checkpoint(tag="")
        fields = {**self.config.to_dict(), **known.config, **overrides}
        try:
            config = type(self.config).from_dict(fields)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from error
        preprocess = known.preprocess or self.preprocess
        if "img_size" in overrides:
            preprocess = replace(preprocess, size=overrides["img_size"])
        return ModelInfo(
            model=self.name, config=config, preprocess=preprocess, license=known.license
        )


def timm_weights(
    model: str, tag: str, license: str, top1: float | None = None, **more: Any
) -> Checkpoint:
    """Weights of a classifier of ImageNet-1k that timm has put on the hub."""
    return Checkpoint(
        **{"tag": tag, "repo": f"timm/{model}.{tag}", "license": license, "top1": top1}
        | {"labels": IMAGENET1K}
        | more
    )


_COLOURS = {"clip": (CLIP_MEAN, CLIP_STD), "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}


def weights_of(model: str, table: str, license: str) -> tuple[Checkpoint, ...]:
    """Those of ``model`` in a table of lines "name.tag pixels crop_pct", in its order.

    More words say what is unlike most: squash, clip or half (means and deviations of the
    channels), classes=N, top1=PERCENT, license=NAME, repo=REPOSITORY, file=NAME.
    """
    lines = (line.split() for line in table.splitlines() if line.startswith(f"{model}."))
    return tuple(_weights(*line, license=license) for line in lines)


def _weights(name: str, size: str, crop: str, *words: str, license: str) -> Checkpoint:
    model, _, tag = name.partition(".")
    facts = {"license": license} | dict(w.split("=") for w in words if "=" in w)
    colours = (_COLOURS[w] for w in words if w in _COLOURS)
    mean, std = next(colours, (IMAGENET_MEAN, IMAGENET_STD))
    mode: CropMode = "squash" if "squash" in words else "center"
    return timm_weights(
        model,
        tag,
        facts["license"],
        float(facts["top1"]) if "top1" in facts else None,
        preprocess=Preprocess(
            size=int(size), crop_pct=float(crop), crop_mode=mode, mean=mean, std=std
        ),
        labels="" if "classes" in facts else IMAGENET1K,
        config={"num_classes": int(facts["classes"])} if "classes" in facts else {},
        **{k: v for k, v in facts.items() if k in ("repo", "file")},
    )


_SPECS: dict[str, ModelSpec] = {}


def register_model(spec: ModelSpec) -> None:
    """Add a variant to the table. Raises ValueError for a name that is taken."""
    if spec.name in _SPECS:
        raise ValueError(f"model {spec.name!r} is already registered")
    _SPECS[spec.name] = spec


# How timm and a browser name a repository of the hub.
_SCHEME = re.compile(r"(hf[-_]hub:|(https?://)?(huggingface\.co|hf\.co)/)")
_REPOSITORY = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")


def hub_repository(name: str) -> str:
    """The repository that ``name`` means, as "hf-hub:OWNER/NAME" or plainly; "" for none."""
    repo = _SCHEME.sub("", name, count=1).rstrip("/")
    return repo if _REPOSITORY.fullmatch(repo) else ""


def has_scheme(name: str) -> bool:
    """Whether ``name`` says that it means a repository of the hub."""
    return _SCHEME.match(name) is not None


def unlisted_repository(name: str) -> str:
    """The repository that a ``name`` with a scheme means, if no weights of ours are from it."""
    return hub_repository(name) if has_scheme(name) and not registered_name(name) else ""


def registered_name(name: str) -> str:
    """The name.tag of the weights that the hub's ``name`` means; "" if there are none.

    ``name`` may be "hf-hub:timm/shvit_s1.in1k" or "timm/shvit_s1.in1k".
    """
    repo = hub_repository(name)
    if not repo:
        return ""
    for spec in _SPECS.values():
        tags = [c.tag for c in spec.checkpoints if c.repo == repo and not spec.part_of]
        if tags:
            return f"{spec.name}.{tags[0]}"
    owner, _, rest = repo.partition("/")
    return rest if owner == "timm" and rest.partition(".")[0] in _SPECS else ""


def parse_name(name: str) -> tuple[ModelSpec, str]:
    """The spec and the tag of a name, the hub's or ours. Raises UnknownModelError."""
    base, _, tag = (registered_name(name) or name).partition(".")
    if base in _SPECS:
        return _SPECS[base], tag
    close = difflib.get_close_matches(base, _SPECS, n=3, cutoff=0.5)
    meant = f"did you mean {', '.join(close)}? " if close else ""
    raise UnknownModelError(f"no model {name!r}; {meant}`ondevice list` has them all")


def model_spec(name: str) -> ModelSpec:
    """The spec of a variant; a tag after a dot is ignored. Raises UnknownModelError."""
    return parse_name(name)[0]


def list_models(pattern: str = "*") -> list[str]:
    """Registered variants whose name matches a shell pattern, sorted."""
    listed = (name for name, spec in _SPECS.items() if not spec.part_of)
    return sorted(fnmatch.filter(listed, pattern))
