"""Parts of one value that are all turned the same way: the whole is turned once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph import Graph, Node

_SCALES = frozenset({"Affine"})  # what may lie between a part and its transpose


@dataclass(frozen=True)
class _Part:
    """``Transpose(Slice(x))``, or ``Transpose(Affine(Slice(x)))`` of the last axis."""

    cut: Node
    scale: Node | None
    turn: Node

    @property
    def key(self) -> tuple[str, tuple[int, ...]]:
        return self.cut.inputs[0], self.turn["axes"]


def share_moves(graph: Graph) -> Graph:
    """Two or more slices of a value, each transposed alike, are slices of its transpose.

    Of a physical graph: attention in windows cuts its queries into dozens of them.
    """
    groups: dict[tuple[str, tuple[int, ...]], list[_Part]] = {}
    for node in graph.nodes:
        if node.op == "Transpose" and (part := _part(graph, node)):
            groups.setdefault(part.key, []).append(part)
    changed: dict[str, list[Node]] = {}
    for key, parts in groups.items():
        if len(parts) > 1:
            changed |= _shared(graph, *key, parts)
    return graph.with_nodes(m for n in graph.nodes for m in changed.get(n.outputs[0].name, [n]))


def _part(graph: Graph, turn: Node) -> _Part | None:
    """What ends with this transpose, if nothing else reads what is between."""
    maker, scale = _only(graph, turn.inputs[0]), None
    if maker is not None and maker.op in _SCALES and turn["axes"][-1] == len(turn["axes"]) - 1:
        maker, scale = _only(graph, maker.inputs[0]), maker
    if maker is None or maker.op != "Slice" or maker.inputs[0] in graph.constants:
        return None
    return _Part(maker, scale, turn)


def _only(graph: Graph, name: str) -> Node | None:
    return graph.producer.get(name) if graph.uses[name] == 1 else None


def _shared(
    graph: Graph, source: str, axes: tuple[int, ...], parts: list[_Part]
) -> dict[str, list[Node]]:
    """By the name of what a node made, the nodes that come in its place."""
    value = graph.values[source]
    order = "".join(map(str, axes))
    turned = replace(
        value, name=f"{source}_turned_{order}", shape=tuple(value.shape[a] for a in axes)
    )
    found: dict[str, list[Node]] = {}
    for part in parts:
        end = part.turn.output
        args = tuple(tuple(ends[a] for a in axes) for ends in part.cut.args)
        made = end if part.scale is None else replace(end, name=part.cut.output.name)
        found[part.cut.output.name] = [Node("Slice", (turned.name,), (made,), args)]
        found[end.name] = []
        if part.scale is not None:
            found[part.scale.output.name] = [replace(part.scale, outputs=(end,))]
    places = {n.outputs[0].name: i for i, n in enumerate(graph.nodes)}
    first = min((part.cut.output.name for part in parts), key=lambda name: places[name])
    found[first].insert(0, Node("Transpose", (source,), (turned,), (axes,)))
    return found
