"""What is known about a model besides its weights, as frozen dataclasses.

``ModelConfig`` says how to build the network, ``Preprocess`` how an image becomes its input,
``ModelInfo`` what one set of weights is: all three together are a saved ``config.json``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from types import UnionType
from typing import Any, Literal, NamedTuple, Self, TypeVar, get_args, get_origin, get_type_hints

from ..errors import ConfigError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
CropMode = Literal["center", "squash", "border", "pad"]
T = TypeVar("T")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class FeatureInfo(NamedTuple):
    """One map of a feature pyramid."""

    stage: int
    channels: int
    stride: int


# Kept, as the registry makes hundreds of contracts.
_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def _from_dict(cls: type[T], values: Any) -> T:
    if not isinstance(values, dict):
        raise ConfigError(f"{cls.__name__} is a {type(values).__name__}, expected a table")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - known.keys()):
        hints = [f"{k!r}" + _closest(k, known) for k in unknown]
        raise ConfigError(f"{cls.__name__} has no field {', '.join(hints)}")
    given = {k: _as_tuples(v) for k, v in values.items()}
    if wrong := _misfits(given, _hints(cls), {k: known[k].type for k in given}):
        raise ConfigError(f"{cls.__name__}: {wrong}")
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{cls.__name__}: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether ``value``, from a JSON file, is of the annotated type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin is UnionType:
        return any(_fits(value, arg) for arg in args)
    if origin is tuple and isinstance(value, tuple):
        hints = args[:1] * len(value) if args[-1] is Ellipsis else args
        return len(value) == len(hints) and all(map(_fits, value, hints))
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, int | float if hint is float else origin or hint)


def _misfits(
    given: Mapping[str, Any], hints: Mapping[str, Any], written: Mapping[str, Any]
) -> str:
    """The values that are not of their types, which are shown as they are ``written``."""
    return "; ".join(
        f"{name} is {value!r:.60}, expected {written[name]}"
        for name, value in given.items()
        if name in hints and not _fits(value, hints[name])
    )


_PLAIN: dict[str, Any] = {"int": int, "float": float, "bool": bool, "int | None": int | None}


def check_numbers(options: Any) -> None:
    """Raises ConfigError for fields of a dataclass that are numbers, or true or false, and
    were given something else."""
    written = {f.name: str(f.type) for f in fields(options)}
    hints = {name: _PLAIN[kind] for name, kind in written.items() if kind in _PLAIN}
    if wrong := _misfits({name: getattr(options, name) for name in hints}, hints, written):
        raise ConfigError(wrong)


def _closest(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture hyper-parameters. One subclass per family."""

    num_classes: int = 1000

    def __post_init__(self) -> None:
        if self.num_classes < 0:
            raise ConfigError(f"num_classes is {self.num_classes}, expected 0 or more")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Raises ConfigError that names every unknown field."""
        return _from_dict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """As in ``config.json``."""
        return asdict(self)

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """Channels and stride of each stage's map."""
        raise NotImplementedError

    @property
    def default_output(self) -> str:
        """What the model usually gives, where that is not logits or an embedding."""
        return ""

    @property
    def only_size(self) -> int | None:
        """The only height and width that images may have, of a model with tables of one."""
        return None

    @property
    def stride(self) -> int:
        """Heights and widths of input images are multiples of this.

        The first map's stride by default: later maps of odd size are halved, too (14, 7, 4).
        """
        return self.feature_info[0].stride


@dataclass(frozen=True, kw_only=True)
class PyramidConfig(ModelConfig):
    """Of a network whose first map has a quarter of the image's height and width, and each
    other one half of those of the map before; ``embed_dim`` are their channels."""

    embed_dim: tuple[int, ...]

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, c, 4 * 2**i) for i, c in enumerate(self.embed_dim))


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the model's input: data that belongs to the checkpoint.

    The short edge (``crop_mode="center"``), both edges ("squash") or the long edge ("border",
    the rest in the colour of ``mean``) are resized to ``floor(size / crop_pct)`` px, then the
    centre ``size`` square is cut out; "pad" first centres the image on a square of ``fill``.
    With ``source_size``, the centre square is first resized to that many pixels: for nets
    that only ever saw enlarged thumbnails. Last, ``(x / 255 - mean) / std`` per channel.
    Raises ConfigError for a value that is impossible or of another type.
    """

    size: int = 224
    crop_pct: float = 0.875
    crop_mode: CropMode = "center"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    fill: tuple[int, int, int] = (0, 0, 0)
    source_size: int | None = None

    def __post_init__(self) -> None:
        hints = _hints(type(self))
        given = {name: _as_tuples(getattr(self, name)) for name in hints}
        if wrong := _misfits(given, hints, self.__annotations__):
            raise ConfigError(f"impossible preprocessing: {wrong}")
        for name, value in given.items():
            object.__setattr__(self, name, value)  # lists, too, become tuples
        problems = [
            f"{name}={getattr(self, name)!r}"
            for name, fine in {
                "size": self.size > 0,
                "crop_pct": 0 < self.crop_pct <= 1,
                "crop_mode": self.crop_mode in get_args(CropMode),
                "interpolation": self.interpolation in get_args(Interpolation),
                "mean": len(self.mean) == 3 and all(0 <= x <= 1 for x in self.mean),
                "std": len(self.std) == 3 and all(0 < x <= 1 for x in self.std),
                "fill": len(self.fill) == 3 and all(0 <= x <= 255 for x in self.fill),
                "source_size": self.source_size is None or self.source_size > 0,
            }.items()
            if not fine
        ]
        if problems:
            scale = any(p.startswith(("mean", "std")) for p in problems)
            of = (
                "; mean and std are of pixel values from 0 to 1: divide by 255" if scale else ""
            )
            raise ConfigError(f"impossible preprocessing: {', '.join(problems)}{of}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Raises ConfigError that names every unknown field or impossible value."""
        return _from_dict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """As in ``config.json``."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What one set of weights is: it travels with the model, its saved folder, its package.

    ``top1`` is the published accuracy in percent, ``metrics`` what was measured on these very
    weights. ``recipe`` is the compression that they were trained to be rounded by, ``adapter``
    the rank of adapters beside the model's own layers, if there are any. A ``license`` in
    ``RESTRICTED`` forbids or limits redistribution.
    """

    model: str
    tag: str = ""
    config: ModelConfig
    preprocess: Preprocess
    labels: tuple[str, ...] = ()
    license: str = "unknown"
    source: str = ""
    top1: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    adapter: int = 0

    def __post_init__(self) -> None:
        if self.adapter < 0:
            raise ConfigError(f"adapter is {self.adapter}, expected a rank of 0 or more")

    @property
    def name(self) -> str:
        """``model``, or ``model.tag``."""
        return f"{self.model}.{self.tag}" if self.tag else self.model

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class that has a probability; nothing if the classes have none.

        Of one logit there are two: "not X" and "X" where only X is named.
        """
        if self.config.num_classes == 1 and len(self.labels) == 1:
            return (f"not {self.labels[0]}", self.labels[0])
        return self.labels

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Raises ConfigError that names every unknown field."""
        return _from_dict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """As in ``config.json``."""
        return asdict(self)


# Licences under which weights may be used but not, or not freely, passed on.
RESTRICTED = {"apple-amlr", "apple-ascl", "cc-by-nc-4.0", "nvidia-segformer"}
