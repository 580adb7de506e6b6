"""A folder as timm saves it: ``config.json`` beside ``model.safetensors`` or a file of torch.

Its config says which network it is, how it takes images and what its classes are called, in
two forms: all in one table, or (since timm 0.9) in ``pretrained_cfg`` but for a few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import ModelConfig, ModelInfo, Preprocess
from ..config.labels import check_labels
from ..errors import ConfigError
from ..registry import ModelSpec, parse_name

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")

# timm's name of what is ours; what is missing is as timm has it, which is our default, too.
_PREPROCESS = ("crop_pct", "crop_mode", "interpolation", "mean", "std")
_TRAINING = ("drop_rate", "drop_path_rate", "proj_drop_rate", "scriptable", "exportable")
_OPEN = ("mit", "unknown")  # licences that ask nothing of weights trained further


def is_timm(values: Any) -> bool:
    """Whether a ``config.json`` with these values is timm's."""
    return isinstance(values, dict) and isinstance(values.get("architecture"), str)


def timm_info(values: Mapping[str, Any]) -> ModelInfo:
    """What timm's ``config.json`` says of its weights, in our words.

    Raises ConfigError that lists what cannot be expressed, UnknownModelError.
    """
    spec, tag = parse_name(values["architecture"])
    inner = values.get("pretrained_cfg", values)
    if not isinstance(inner, dict):
        raise ConfigError("pretrained_cfg is no table")
    said = {k: v for k, v in {**_current(inner, values), **values}.items() if v is not None}
    arguments = said.get("model_args", {})
    if not isinstance(arguments, dict):
        raise ConfigError("model_args is no table")
    size, problems = _size(said.get("input_size", (3, 224, 224)))
    problems += _problems(spec, said, arguments)
    if problems:
        raise ConfigError("; ".join(problems))
    config = _config(spec, size, said, arguments)
    fields = {k: said[k] for k in _PREPROCESS if k in said}
    side = config.to_dict().get("img_size", size)
    info = replace(
        spec.contract(tag),
        config=config,
        preprocess=Preprocess.from_dict({"size": side, **fields}),
        labels=_labels(said, config.num_classes),
    )
    check_labels(info.labels, config.num_classes, "label_names")
    return replace(info, license=derived_license(said.get("license"), info.license))


def _current(inner: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """``inner``, which of a fine-tune may still name the classes that it began with."""
    stale = inner.get("num_classes") != values.get("num_classes", inner.get("num_classes"))
    names = ("label_names", "label_descriptions", "labels") if stale else ()
    return {k: v for k, v in inner.items() if k not in names}


def find_weights(folder: Path) -> Path:
    """The file of weights in a folder, of several the one that timm takes."""
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    return found[0] if found else folder / WEIGHTS[0]


def _size(given: Any) -> tuple[int, list[str]]:
    """Pixels a side, or what is wrong with (channels, height, width)."""
    integers = isinstance(given, list | tuple) and all(type(n) is int for n in given)
    if not integers or len(given) != 3 or given[0] != 3 or given[1] != given[2]:
        return 0, [f"input_size is {given!r:.60}, expected [3, N, N]: square images in RGB"]
    return given[1], []


def _problems(
    spec: ModelSpec, said: Mapping[str, Any], arguments: Mapping[str, Any]
) -> list[str]:
    known = {"global_pool", "in_chans", *_TRAINING, *spec.config.to_dict()}
    other = [f"{k}={v!r:.40}" for k, v in arguments.items() if k not in known]
    pool = "token" if spec.family == "vit" else "avg"
    pools = {str(table.get("global_pool", pool)) for table in (said, arguments)}
    channels = arguments.get("in_chans", 3)
    return [
        *([f"{spec.name} has no {', '.join(other)} (model_args)"] if other else []),
        *([f"global_pool is {', '.join(pools)}, expected {pool}"] if pools != {pool} else []),
        *([f"in_chans is {channels!r:.40}, expected 3"] if channels != 3 else []),
    ]


def _config(
    spec: ModelSpec, size: int, said: Mapping[str, Any], arguments: Mapping[str, Any]
) -> ModelConfig:
    fields = spec.config.to_dict()
    changes = {k: v for k, v in arguments.items() if k in fields and v is not None}
    if "num_classes" in said:
        changes["num_classes"] = said["num_classes"]
    if "img_size" in fields:
        side = changes.get("img_size", size)
        pair = isinstance(side, list) and len(set(map(str, side))) == 1
        changes["img_size"] = side[0] if pair else side
    return type(spec.config).from_dict({**fields, **changes})


def _labels(said: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """A list of names, or a table of them by the class's index. Raises ConfigError."""
    given = said.get("label_names", said.get("labels", ()))
    if isinstance(given, dict):
        indices = [str(i) for i in range(len(given))]
        if len(given) != classes or given.keys() != set(indices):
            raise ConfigError(f"label_names has no name for each of {classes} classes")
        given = [given[n] for n in indices]
    if not isinstance(given, list | tuple):
        raise ConfigError(f"label_names is a {type(given).__name__}, expected a list of texts")
    return tuple(given)


def derived_license(said: Any, known: str) -> str:
    """The licence that a file says, unless what it was trained from asks for more."""
    return said if isinstance(said, str) and said and known in _OPEN else known
