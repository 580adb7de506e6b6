"""What the app's Bench measured on a phone, as ``verify`` shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from ondevice.errors import ConfigError, printable

from ..coreml.device import DeviceMetrics, UnitMetrics

# What each field of a unit has to be, in JSON.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "float": (int, float),
    "Mapping[str, int]": (dict,),
    "tuple[str, ...]": (list,),
}


def read_device_report(path: str | Path) -> dict[str, Any]:
    """The JSON that OnDevice Camera shares, as a report's ``device``.

    Raises ConfigError that lists everything wrong with it.
    """
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    problems = list(_problems(said))
    if problems:
        raise ConfigError(
            f"{path} is no report of the app's Bench: {printable('; '.join(problems))}"
        )
    units = tuple(
        UnitMetrics(**{f.name: unit[f.name] for f in fields(UnitMetrics)})
        for unit in said["units"]
    )
    name = f"{said['name']}, {said['package']}" if "package" in said else said["name"]
    return DeviceMetrics(printable(name), units).to_dict()


def _problems(said: Any) -> Iterator[str]:
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        yield "it names no device"
        return
    units = said.get("units")
    if not isinstance(units, list) or not units:
        yield "it has no units"
        return
    for number, unit in enumerate(units):
        for field in fields(UnitMetrics):
            value = unit.get(field.name) if isinstance(unit, dict) else None
            if not isinstance(value, _KINDS[str(field.type)]) or isinstance(value, bool):
                yield f"unit {number} has no {field.name}"
