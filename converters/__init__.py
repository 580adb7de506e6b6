"""From MLX to Core ML, and back to be checked.

Importing this does not import coremltools, which takes its time: the functions do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ondevice.tasks.import_weights import import_weights as import_weights

from .export import export as export, export_module as export_module
from .graph.trace import trace as trace
from .verification.verify import Report as Report, verify as verify

if TYPE_CHECKING:
    from .coreml.loaded import Package as Package, load_package as load_package

__all__ = [
    "Package",
    "Report",
    "export",
    "export_module",
    "import_weights",
    "load_package",
    "trace",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in {"Package", "load_package"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .coreml import loaded

    return getattr(loaded, name)
