"""Which MLX operations Core ML can hold, and how: with MIL variables or numpy constants."""

from __future__ import annotations

from ondevice.errors import UnsupportedOpError

from ..graph.graph import Graph
from ..graph.lowering import Lowerings

_LOWERINGS = Lowerings()
lower = _LOWERINGS.lower
lowering = _LOWERINGS.__getitem__


def check_supported(graph: Graph) -> None:
    """Raise UnsupportedOpError that lists every operation without a lowering and its place,
    or every input and output without elements."""
    from . import lowerings as lowerings  # they register themselves, and import this module

    if empty := graph.crossing(lambda value: 0 in value.shape):
        raise UnsupportedOpError(
            f"{empty}: Core ML has no input or output without elements; leave it out"
        )
    _LOWERINGS.check(graph)


def supported() -> frozenset[str]:
    """The operations that have a lowering."""
    from . import lowerings as lowerings

    return frozenset(_LOWERINGS)
