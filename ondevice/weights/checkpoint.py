"""Find the weights in a file of torch.save."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ondevice.errors import WeightsError, printable
from ondevice.weights.prefixes import is_ignored, unwrap
from ondevice.weights.torch.file import read_torch
from ondevice.weights.torch.objects import Tensor
from ondevice.weights.torch.pickles import Opaque

logger = logging.getLogger("converters")

# Where training scripts put the weights, in the order in which they are taken: averaged ones
# first, as timm has it. They may lie in each other.
ENTRIES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema"),
    *("state_dict", "model", "model_state_dict", "model_state", "weights", "net", "network"),
    *("module", "params", "checkpoint", "student"),
)
MAX_NESTED = 4  # of entries in entries

Tables = dict[str, dict[Any, Any]]


def read_checkpoint(path: str | Path, entry: str | None = None) -> dict[str, mx.array]:
    """The weights in a .pth, .pt, .bin or .ckpt file, by their names and in torch's layout.

    They are under ``entry``, which may be "model.ema" for one in another, or the beginning of
    names; or under the first of ENTRIES that the file has, or the only one of another name, or
    at the file's top level. What wrappers of PyTorch put before names is taken off. No code of
    the file is run. Raises WeightsError.
    """
    file = read_torch(path)
    found = dict(_tables(file.value, set()))
    table = _named(found, entry) if entry else _usual(_large(found), path)
    if not table:
        raise WeightsError(f"{path} has no weights: {_describe(file.value, entry)}")
    table = {k: v for k, v in table.items() if not (isinstance(k, str) and is_ignored(k))}
    odd = [_show(k, v) for k, v in table.items() if not _is_weight(k, v)]
    if odd:
        raise WeightsError(f"{path} has entries that are not tensors: {', '.join(odd[:12])}")
    return file.make(unwrap(table))


def under(weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Those of ``weights`` whose names begin with ``prefix`` and a dot, without them."""
    start = f"{prefix.removesuffix('.')}."
    return {
        k.removeprefix(start): v
        for k, v in weights.items()
        if isinstance(k, str) and k.startswith(start)
    }


def _tables(
    value: Any, seen: set[int], name: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Each dict of which at least half are tensors, by its dotted path; "" is the top."""
    if not isinstance(value, dict) or id(value) in seen:
        return
    seen.add(id(value))
    if 2 * _tensors(value) >= max(len(value), 1):
        yield name, value
    for key, inside in value.items():
        if isinstance(key, str) and depth < MAX_NESTED and "optim" not in key:
            yield from _tables(inside, seen, f"{name}.{key}" if name else key, depth + 1)


def _tensors(table: Mapping[Any, Any]) -> int:
    return sum(isinstance(v, Tensor) for v in table.values())


def _large(found: Tables) -> Tables:
    """Those that may be a model, not a few tensors that training keeps beside one."""
    most = max(map(_tensors, found.values()), default=0)
    return {name: table for name, table in found.items() if 2 * _tensors(table) >= most}


def _named(found: Tables, entry: str) -> dict[Any, Any]:
    """The table called ``entry``, or the first in it, or what begins so in a table."""
    inside = {k: v for k, v in found.items() if f"{k}.".startswith(f"{entry}.")}
    parts = {k: under(table, entry) for k, table in found.items()}
    wanted = inside or {k: v for k, v in parts.items() if v}
    return wanted[min(wanted, key=_rank)] if wanted else {}


def _usual(found: Tables, path: str | Path) -> dict[Any, Any]:
    """The first table of a known name, or else the only one; a word if there are others."""
    known = [name for name in found if _is_known(name)]
    if not known and len(found) > 1:
        raise WeightsError(
            f"{path} has several sets of weights: {_names(found)}; choose one by --entry"
        )
    if not found:
        return {}
    name = min(known or found, key=_rank)
    if others := [other for other in found if other != name]:
        logger.warning(
            f"{path}: took {name!r}; there is also {_names(others)}, which --entry would take"
        )
    return found[name]


def _names(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(printable(name, 80) for name in names[:8]) + more


def _is_known(name: str) -> bool:
    return not name or all(part in ENTRIES for part in name.split("."))


def _rank(name: str) -> tuple[int, ...]:
    """The order in which tables are taken; the top level is the last of those known."""
    parts = name.split(".") if name else [""]
    return tuple(ENTRIES.index(p) if p in ENTRIES else len(ENTRIES) for p in parts)


def _is_weight(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _show(key: Any, value: Any) -> str:
    """An entry's name, and of what objects it is if they have names."""
    inside = value.values() if isinstance(value, dict) else [value]
    kinds = sorted({printable(v.name, 80) for v in inside if isinstance(v, Opaque)})
    what = f" ({', '.join(kinds[:3])})" if kinds else ""
    return f"{printable(str(key), 60)}{what}"


def _describe(value: Any, entry: str | None) -> str:
    if isinstance(value, Opaque):
        return f"it holds {printable(value.name, 80)}; save model.state_dict() instead"
    if not isinstance(value, dict):
        return f"it holds a {type(value).__name__}, expected a dict"
    keys = ", ".join(_show(*item) for item in list(value.items())[:12])
    looked = entry or f"any of {', '.join(ENTRIES)} or at the top"
    return f"no tensors under {looked}; its entries are {keys}"
