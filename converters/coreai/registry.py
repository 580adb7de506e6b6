"""Which operations of our graph Core AI can hold, and how: of Core AI values, constants too."""

from __future__ import annotations

from ..graph.graph import Graph
from ..graph.lowering import Lowerings

_LOWERINGS = Lowerings()
lower = _LOWERINGS.lower
lowering = _LOWERINGS.__getitem__


def check_supported(graph: Graph) -> None:
    """Raise UnsupportedOpError that lists every operation without a lowering and its place."""
    from . import lowerings as lowerings  # they register themselves, and import this module

    _LOWERINGS.check(graph)
