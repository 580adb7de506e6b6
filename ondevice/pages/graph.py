"""A graph of operations as SVG, from top to bottom: each below all that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .plot import element, text

WIDTH, HEIGHT = 148, 38  # pixels of a node
ACROSS, DOWN = WIDTH + 24, HEIGHT + 26  # from one node to the next
MARGIN = 12
MAX_TEXT = 20  # characters in a node


@dataclass(frozen=True)
class Node:
    """An operation: two lines of text, what a pointer over it is told, a class of the
    stylesheet, and the names of the nodes that it reads."""

    name: str
    title: str
    line: str
    more: str
    reads: tuple[str, ...]
    kind: str = ""


def draw(nodes: Sequence[Node], label: str) -> str:
    """The graph as an SVG element; ``nodes`` come after what they read.

    Every text is escaped. The page has ``plot_style()`` in its stylesheet.
    """
    at = place(nodes)
    columns = max((column for column, _ in at.values()), default=0) + 1
    rows = max((row for _, row in at.values()), default=0) + 1
    width, height = 2 * MARGIN + (columns + 0.5) * ACROSS, 2 * MARGIN + rows * DOWN
    edges = [_edge(at[read], at[n.name]) for n in nodes for read in n.reads if read in at]
    return element(
        "svg",
        element("g", *edges, class_="edges"),
        *(drawn for node in nodes for drawn in _node(node, *at[node.name])),
        viewBox=f"0 0 {width} {height}",
        style=f"width: {width}px; min-width: 0",
        role="img",
        aria_label=label,
    )


def place(nodes: Sequence[Node]) -> Mapping[str, tuple[int, int]]:
    """The (column, row) of each node: below all that it reads, the nearest that is free."""
    at: dict[str, tuple[int, int]] = {}
    taken: set[tuple[int, int]] = set()
    for node in nodes:
        above = [at[read] for read in node.reads if read in at]
        row = 1 + max((row for _, row in above), default=-1)
        wanted = min((column for column, _ in above), default=0)
        column = next(c for c in _outwards(wanted) if (c, row) not in taken)
        at[node.name] = column, row
        taken.add((column, row))
    return at


def _outwards(column: int) -> Iterator[int]:
    """A column, then those beside it, the nearest first."""
    yield column
    for distance in range(1, 10_000):
        yield column + distance
        if distance <= column:
            yield column - distance


def _node(node: Node, column: int, row: int) -> Iterator[str]:
    x, y = MARGIN + column * ACROSS, MARGIN + row * DOWN
    middle = x + WIDTH / 2
    yield element(
        "g",
        element("title", text(node.more)),
        element("rect", x=x, y=y, width=WIDTH, height=HEIGHT, rx=6),
        _line(node.title, middle, y + 16, "name"),
        _line(node.line, middle, y + 31, ""),
        class_=f"node {node.kind}".strip(),
    )


def _line(said: str, x: float, y: float, kind: str) -> str:
    shown = said if len(said) <= MAX_TEXT else f"{said[: MAX_TEXT - 1]}…"
    return element("text", text(shown), class_=kind or None, x=x, y=y, text_anchor="middle")


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    """From the bottom of a node to the top of one below, beside those that are between."""
    (x0, y0), (x1, y1) = (
        (MARGIN + column * ACROSS + WIDTH / 2, MARGIN + row * DOWN)
        for column, row in (start, end)
    )
    y0 += HEIGHT
    far = end[1] - start[1] > 1
    beside = (max(x0, x1) + ACROSS / 2,) * 2 if far else (x0, x1)
    bend = (y1 - y0) / (4 if far else 2)
    curve = f"M{x0} {y0}C{beside[0]} {y0 + bend} {beside[1]} {y1 - bend} {x1} {y1}"
    return element("path", d=curve)
