"""What is to become of which constant: rules in parameter paths, presets, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ondevice.errors import ConfigError

from .equalization import EQUALIZATIONS
from .methods import METHODS, check_options
from .storage import Level, Storage

ACTIVATIONS = ("minmax", "percentile", "mse", "kl", "auto")


@dataclass(frozen=True, init=False)
class Rule:
    """``Rule("stages.*.weight", "palettize", bits=4)``: a path pattern, a method, its options.

    Raises ConfigError for a method or option that does not exist.
    """

    pattern: str
    method: str
    options: Mapping[str, Any]

    def __init__(self, pattern: str, method: str, **options: Any) -> None:
        check_options(method, options)
        for name, value in (("pattern", pattern), ("method", method), ("options", options)):
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """As in a recipe file."""
        return {"pattern": self.pattern, "method": self.method, **self.options}


@dataclass(frozen=True)
class CompressionRecipe:
    """The first rule whose pattern matches a path decides; what no rule matches stays float.

    ``activations`` names how the ranges of eight-bit activations are found; empty, activations
    stay float. ``equalization`` names how their channels are equalized first.

    With ``trained``, a model was trained to be rounded by it: to the nearest code, whatever
    the calibration, and activations by ``ranges``, a scale and a zero point for the input of
    each layer, by its weight's path.
    """

    rules: tuple[Rule, ...]
    activations: str = ""
    name: str = "custom"
    equalization: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)
    trained: bool = False
    ranges: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        if self.activations and self.activations not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ConfigError(f"no activation range {self.activations!r}; there are {known}")
        if self.equalization and self.equalization not in EQUALIZATIONS:
            known = ", ".join(EQUALIZATIONS)
            raise ConfigError(f"no equalization {self.equalization!r}; there are {known}")
        if self.equalization and not self.activations:
            raise ConfigError(
                "equalization is for eight-bit activations; say how they are found"
            )

    def rule(self, path: str) -> Rule:
        """The first rule that matches a parameter's path."""
        found = (rule for rule in self.rules if fnmatchcase(path, rule.pattern))
        return next(found, Rule(path, "none"))

    def check(self, paths: Iterable[str], storage: Storage) -> CompressionRecipe:
        """Itself; raises ConfigError for patterns without a match, or what cannot be held."""
        known = list(paths)
        unmatched = [r.pattern for r in self.rules if not _matches(r.pattern, known)]
        if unmatched:
            raise ConfigError(
                f"recipe {self.name}: no weight matches {', '.join(unmatched)}; "
                f"there are {', '.join(known[:3])}, … ({len(known)})"
            )
        needed = [METHODS[r.method].needs(r.options) for r in self.rules]
        level = max([*needed, Level.ACTIVATIONS if self.activations else Level.TENSORS])
        if not storage.holds(level):
            raise ConfigError(
                f"recipe {self.name} needs {storage.names.get(level, level.name.lower())}, "
                f"not {storage.name}; {_advice(self, storage)}"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """As in a recipe file."""
        rules = [rule.to_dict() for rule in self.rules]
        found = {"activations": self.activations, "equalization": self.equalization}
        own = {"trained": True, "ranges": dict(self.ranges)} if self.trained else {}
        return {"name": self.name, "rules": rules, **found, **own}


def _matches(pattern: str, paths: list[str]) -> bool:
    return pattern == "*" or any(fnmatchcase(path, pattern) for path in paths)


def _advice(recipe: CompressionRecipe, storage: Storage) -> str:
    lower = PRESETS[recipe.name].lower if recipe.name in PRESETS else "palette4"
    return f"use {lower}, or {storage.hint}" if storage.hint else f"use {lower}"


@dataclass(frozen=True)
class Preset:
    """``build(storage)`` makes the recipe; ``lower`` is the best for what holds less."""

    line: str
    build: Callable[[Storage], CompressionRecipe]
    lower: str = ""


def _one(method: str, **options: Any) -> Any:
    return lambda _: CompressionRecipe((Rule("*", method, **options),))


def _eight(method: str, **options: Any) -> Any:
    """With eight-bit activations, found and equalized as measured to lose least."""
    rules = (Rule("*", method, **options),)
    return lambda _: CompressionRecipe(rules, "auto", equalization="smooth")


def _palette(bits: int) -> Any:
    """Groups of 16 channels have a table of their own where that can be held."""

    def build(storage: Storage) -> CompressionRecipe:
        group = 16 if storage.holds(Level.BLOCKS) and bits == 4 else 0
        return CompressionRecipe((Rule("*", "palettize", bits=bits, group=group),))

    return build


_A8W4: dict[str, Any] = {"bits": 4, "group": 16, "table_bits": 8}
PRESETS: dict[str, Preset] = {
    "int8": Preset("8-bit weights, a scale a channel", _one("quantize", bits=8)),
    "palette8": Preset("256 values a tensor", _palette(8)),
    "palette6": Preset("64 values a tensor", _palette(6)),
    "palette4": Preset("16 values a tensor, or a group where that can be held", _palette(4)),
    "int4-block": Preset(
        "4-bit weights, a scale a block of 32: for the GPU of a Mac",
        _one("quantize", bits=4, block=32),
        lower="palette4",
    ),
    "w8a8": Preset(
        "8-bit weights and activations, for the int8 path of A17 Pro, M4 and later",
        _eight("quantize", bits=8),
        lower="int8",
    ),
    "a8w4": Preset(
        "8-bit activations, 4-bit palettes of 8-bit values: the int8 path, half the size",
        _eight("palettize", **_A8W4),
        lower="w8a8",
    ),
    "prune": Preset("two of five weights are zero", _one("prune", sparsity=0.4)),
    "prune-int8": Preset(
        "two of five weights are zero, the rest 8 bits",
        _one("prune", sparsity=0.4, then="quantize", bits=8),
        lower="prune",
    ),
    "prune-palette4": Preset(
        "three of ten weights are zero, the rest 16 values a tensor",
        _one("prune", sparsity=0.3, then="palettize", bits=4),
        lower="prune",
    ),
    "palette4-int8": Preset(
        "16 values a group, 8 bits each", _one("palettize", **_A8W4), lower="palette4"
    ),
}


def load_recipe(source: str | Path | CompressionRecipe, storage: Storage) -> CompressionRecipe:
    """A preset by name, a YAML or JSON file, or a recipe as it is. Raises ConfigError."""
    if isinstance(source, CompressionRecipe):
        return source
    if str(source) in PRESETS:
        return replace(PRESETS[str(source)].build(storage), name=str(source))
    path = Path(source)
    if path.suffix not in {".json", ".yaml", ".yml"}:
        raise ConfigError(
            f"no recipe {str(source)!r}; there are {', '.join(PRESETS)}, or a YAML or JSON file"
        )
    try:
        text = path.read_text(encoding="utf-8")
        return parse_recipe(_parsed(text, path.suffix), path.stem)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, ConfigError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error


def _parsed(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error


def parse_recipe(values: Any, name: str) -> CompressionRecipe:
    """``{"rules": [{"pattern", "method", …options}], "activations": …,
    "equalization": …}``, and of a recipe that was trained with ``"trained"``, ``"ranges"``."""
    if not isinstance(values, dict) or not isinstance(values.get("rules"), list):
        raise ConfigError('a recipe is a mapping with a list of "rules"')
    if unknown := values.keys() - {f.name for f in fields(CompressionRecipe) if f.compare}:
        raise ConfigError(f"unknown {', '.join(map(str, sorted(unknown, key=str)))}")
    rules = []
    for entry in values["rules"]:
        if not isinstance(entry, dict) or not {"pattern", "method"} <= entry.keys():
            raise ConfigError(f'a rule has a "pattern" and a "method"; given {entry!r}')
        options = {str(k): v for k, v in entry.items() if k not in ("pattern", "method")}
        rules.append(Rule(str(entry["pattern"]), str(entry["method"]), **options))
    return CompressionRecipe(
        tuple(rules),
        str(values.get("activations") or ""),
        str(values.get("name") or name),
        str(values.get("equalization") or ""),
        trained=bool(values.get("trained")),
        ranges={str(k): tuple(v) for k, v in dict(values.get("ranges") or {}).items()},
    )
