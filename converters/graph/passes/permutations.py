"""Permutations of many axes as few permutations of few: what lies together moves together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, combinations, groupby, pairwise, permutations

from ..graph import Shape
from .orders import MAX_RANK

Step = tuple[tuple[int, ...], tuple[int, ...]]  # how many axes each block has; their new order


def blocks(shape: Shape, axes: Sequence[int]) -> tuple[list[list[int]], tuple[int, ...]]:
    """The axes longer than one that a transpose keeps together, and the order it gives them."""
    moved: list[list[int]] = []
    at = {axis: i for i, axis in enumerate(a for a, n in enumerate(shape) if n != 1)}
    for axis in (a for a in axes if shape[a] != 1):
        if moved and at[moved[-1][-1]] + 1 == at[axis]:
            moved[-1].append(axis)
        else:
            moved.append([axis])
    lying = sorted(moved)
    return lying, tuple(map(lying.index, moved))


@cache
def steps(order: tuple[int, ...]) -> tuple[Step, ...]:
    """Transposes of at most five blocks each that together bring axes into ``order``."""
    rank = {axis: i for i, axis in enumerate(order)}
    lying = tuple(rank[axis] for axis in range(len(order)))  # sorted when all is done
    found: list[Step] = []
    while lying != tuple(sorted(lying)):
        step = max(_moves(lying), key=lambda s: (_together(_moved(lying, s)), -len(s[0])))
        found.append(step)
        lying = _moved(lying, step)
    return tuple(found)


def _moves(lying: tuple[int, ...]) -> Iterator[Step]:
    """Every way to exchange up to five blocks, none of which cuts what belongs together."""
    cuts = [i + 1 for i, (a, b) in enumerate(pairwise(lying)) if a + 1 != b]
    for count in range(2, MAX_RANK + 1):
        for chosen in combinations(cuts, count - 1):
            sizes = tuple(b - a for a, b in pairwise((0, *chosen, len(lying))))
            for order in permutations(range(count)):
                yield sizes, order


def _moved(lying: tuple[int, ...], step: Step) -> tuple[int, ...]:
    sizes, order = step
    ends = list(accumulate(sizes))
    parts = [lying[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    return tuple(axis for i in order for axis in parts[i])


def _together(lying: tuple[int, ...]) -> int:
    """How many neighbours are in their final place beside each other."""
    return sum(a + 1 == b for a, b in pairwise((-1, *lying, len(lying))))


def runs(keys: Sequence[object], shape: Shape) -> list[list[int]]:
    """Neighbouring axes with equal keys, those of length one left out."""
    axes = (a for a, n in enumerate(shape) if n != 1)
    return [list(group) for _, group in groupby(axes, key=lambda a: keys[a])]
