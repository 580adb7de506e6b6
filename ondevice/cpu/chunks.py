"""What is large in pieces, which stay in a core's cache; the cores may take turns at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import mlx.core as mx

Value = TypeVar("Value")
Piece = Sequence[mx.array]
Form = Callable[..., mx.array]  # of a piece's arrays

SIZE = 1 << 17  # numbers: half a megabyte, which the second cache of a core holds


@contextmanager
def within(variable: ContextVar[Value], value: Value) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@dataclass(frozen=True)
class Cores:
    """A stream of each; ``alone``: within it each has its matrix products to itself."""

    streams: Sequence[mx.Stream]
    alone: Callable[[], AbstractContextManager[None]]


_cores: ContextVar[Cores | None] = ContextVar("cores", default=None)


def taken_by(cores: Cores) -> AbstractContextManager[None]:
    """Within it these cores take turns at the pieces, which are computed at once."""
    return within(_cores, cores)


def cores() -> int:
    """How many take turns here and now."""
    return len(found.streams) if (found := _cores.get()) else 1


def are_worth_it(numbers: int) -> bool:
    """Whether there are cores to take turns, and so many numbers gain by it."""
    return cores() > 1 and numbers >= 2 * SIZE


def in_turn(form: Form, pieces: Iterable[Piece]) -> list[mx.array]:
    """``form`` of each piece, one after the other on each core."""
    if (cores := _cores.get()) is None:
        return _chained(form, pieces, [mx.default_stream(mx.default_device())])
    pieces = [list(piece) for piece in pieces]
    mx.eval(pieces)  # while the matrix products of what led to them have all cores
    with cores.alone(), within(_cores, None):
        done = _chained(form, pieces, cores.streams)
        mx.eval(done)
    return done


def _chained(
    form: Form, pieces: Iterable[Piece], streams: Sequence[mx.Stream]
) -> list[mx.array]:
    done: list[mx.array] = []
    for piece in pieces:
        turn, place = divmod(len(done), len(streams))
        before = [done[-len(streams)]] if turn else []
        with mx.stream(streams[place]):
            # MLX would do the first operation of all pieces first, but for this.
            done.append(form(*mx.depends(list(piece), before)))
    return done


def every(count: int, x: mx.array, axis: int = 0) -> list[mx.array]:
    """Pieces of so many along the axis, the last of what is left."""
    return list(mx.split(x, range(count, x.shape[axis], count), axis=axis))


def equal(count: int, x: mx.array, axis: int = 0) -> list[mx.array]:
    """So many pieces along the axis, as equal as can be."""
    length = x.shape[axis]
    return list(mx.split(x, [length * i // count for i in range(1, count)], axis=axis))


def of_rows(form: Form, x: mx.array, width: int = 1) -> mx.array:
    """``form``, which takes any number of rows of ``width``, of a large ``x``."""
    if x.size < 4 * SIZE:
        return form(x)
    pieces = every(max(1, SIZE // width), x.reshape(-1, width))
    return mx.concatenate(in_turn(form, zip(pieces, strict=True))).reshape(x.shape)
