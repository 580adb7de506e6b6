"""Find the weights in a file of torch.save."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlx.core as mx

from ondevice.errors import WeightsError, printable

from .torch_file import read_torch
from .torch_objects import Tensor

logger = logging.getLogger("converters")

# Where training scripts put the weights, the usual place first; averaged ones last.
ENTRIES = (
    *("state_dict", "model", "model_state_dict", "net", "module", "params"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema"),
)
_WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and compile put in front


def read_checkpoint(path: str | Path, entry: str | None = None) -> dict[str, mx.array]:
    """The weights in a .pth, .pt or .pth.tar file, by their names and in torch's layout.

    They are under the first of ENTRIES that the file has, or under ``entry``, or else the
    file's top level.
    No code of the file is run. Raises WeightsError.
    """
    file = read_torch(path)
    found = _tables(file.value, (entry,) if entry else (*ENTRIES, ""))
    if not found:
        raise WeightsError(f"{path} has no weights: {_describe(file.value, entry)}")
    name = next(iter(found))
    if others := [other for other in found if other != name]:
        logger.warning(f"{path}: took {name!r}; there is also {', '.join(others)}")
    odd = [printable(str(k)) for k, v in found[name].items() if not _is_weight(k, v)]
    if odd:
        raise WeightsError(f"{path} has entries that are not tensors: {', '.join(odd[:12])}")
    return _unwrap(file.make(found[name]))


def _tables(value: Any, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The entries of ``value`` that hold tensors; "" is ``value`` itself."""
    if not isinstance(value, dict):
        return {}
    entries = {name: value.get(name) if name else value for name in names}
    return {
        name: table
        for name, table in entries.items()
        if isinstance(table, dict) and any(isinstance(v, Tensor) for v in table.values())
    }


def _is_weight(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _describe(value: Any, entry: str | None) -> str:
    if not isinstance(value, dict):
        return f"it holds a {type(value).__name__}, expected a dict"
    keys = ", ".join(printable(str(key), 40) for key in list(value)[:12])
    looked = entry or f"any of {', '.join(ENTRIES)} or at the top"
    return f"no tensors under {looked}; its entries are {keys}"


def _unwrap(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): array for name, array in weights.items()}
    return weights
