"""Python's garbage collector, kept from going through all that others have loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def old_objects_at_rest() -> Iterator[None]:
    """Within it only new objects are looked at.

    Building a package makes a million objects, and coremltools collects garbage on purpose:
    with PyTorch in the process, going through its objects takes longer than the export.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
