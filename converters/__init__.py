"""From MLX to Core ML, and back to be checked: export, load_package, verify, import_weights.

Nothing is imported before it is asked for: coremltools takes its time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .coreml.loaded import Package as Package, load_package as load_package
    from .export import export as export
    from .import_weights import import_weights as import_weights
    from .trace import trace as trace
    from .verify import Report as Report, verify as verify

_HOMES = {
    "Package": ".coreml.loaded",
    "Report": ".verify",
    "export": ".export",
    "import_weights": ".import_weights",
    "load_package": ".coreml.loaded",
    "trace": ".trace",
    "verify": ".verify",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
