"""From MLX to packages, and back to be checked.

Importing this does not import coremltools, which takes its time: the functions do.
"""

from __future__ import annotations

from ondevice.tasks.import_weights import import_weights as import_weights

from .backend import load_package as load_package
from .compress.training import rounding as rounding
from .export import (
    export as export,
    export_functions as export_functions,
    export_module as export_module,
)
from .graph.trace import trace as trace
from .program import Program as Program
from .verification.verify import Report as Report, verify as verify

__all__ = [
    "Program",
    "Report",
    "export",
    "export_functions",
    "export_module",
    "import_weights",
    "load_package",
    "rounding",
    "trace",
    "verify",
]
