"""In which order the axes of a value lie in memory, and what reshapes make of it."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Shape

# order[i] is the logical axis that lies at physical axis i; None is an axis of length one
# that only exists physically. Logical axes of length one may be missing.
Order = tuple[int | None, ...]

NCHW: Order = (0, 3, 1, 2)
NCL: Order = (0, 2, 1)
TOKENS: Order = (0, 2, None, 1)  # (B, N, C) as a (B, C, 1, N) image
CUT: Order = (2, 0, 1)  # what becomes of the tokens of one image that are cut into windows
MAX_RANK = 5  # Core ML's

_PREFERRED: dict[int, tuple[Order, ...]] = {4: (NCHW,), 3: ((0, 1, 2), NCL)}


def identity(rank: int) -> Order:
    """The order in which ``ndim`` axes lie as they are."""
    return tuple(range(rank))


def physical(shape: Shape, order: Order) -> Shape:
    """The shape in memory of a value of logical ``shape``."""
    return tuple(1 if axis is None else shape[axis] for axis in order)


def longer(order: Order, shape: Shape) -> list[int]:
    """The axes longer than one, as they lie."""
    return [axis for axis in order if axis is not None and shape[axis] != 1]


def with_nones(kept: Order, have: Order) -> Order:
    """An order with length-one axes where None stands."""
    return (*(a for a in kept if a is not None), *(a for a in have if a is None))


def permutation(have: Order, want: Order) -> tuple[int, ...]:
    """Physical axes of ``have`` in the order of ``want``, which has the same members."""
    left = list(enumerate(have))
    axes = []
    for axis in want:
        found = next(pair for pair in left if pair[1] == axis)
        left.remove(found)
        axes.append(found[0])
    return tuple(axes)


def without(order: Order, axes: Sequence[int]) -> Order:
    """The order after the logical ``axes`` are gone and the others renumbered."""
    left = [a for a in order if a is None or a not in axes]
    return tuple(None if a is None else a - sum(gone < a for gone in axes) for a in left)


def groups_of(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of axes, ones left out, that a reshape maps to each other."""
    left = [(i, n) for i, n in enumerate(before) if n != 1]
    right = [(i, n) for i, n in enumerate(after) if n != 1]
    groups = []
    while left:
        (i, size), (j, total) = left.pop(0), right.pop(0)
        joined, cut = [i], [j]
        while size != total:
            if size < total:
                i, n = left.pop(0)
                joined.append(i)
                size *= n
            else:
                j, n = right.pop(0)
                cut.append(j)
                total *= n
        groups.append((joined, cut))
    return groups


def place(lying: list[int], shape: Shape) -> Order:
    """An order for all axes of ``shape`` whose longer ones lie as given."""
    for order in (*_PREFERRED.get(len(shape), ()), identity(len(shape))):
        if longer(order, shape) == lying:
            return order
    placed = list(lying)
    for axis in (i for i, n in enumerate(shape) if n == 1):
        at = next((k for k, other in enumerate(placed) if other > axis), len(placed))
        placed.insert(at, axis)
    return tuple(placed)


def reshaped(order: Order, before: Shape, after: Shape) -> Order | None:
    """The order after a reshape that only cuts or joins what lies together, or None."""
    groups = groups_of(before, after)
    lying = [axis for axis in order if axis is not None and before[axis] != 1]
    result: list[int] = []
    while lying:
        joined, cut = next(g for g in groups if lying[0] in g[0])
        if lying[: len(joined)] != joined:
            return None
        lying = lying[len(joined) :]
        result += cut
    return place(result, after)
