"""Large arrays in chunks that stay in a core's cache, computed one by one or in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import mlx.core as mx

Value = TypeVar("Value")
Chunk = Sequence[mx.array]
Form = Callable[..., mx.array]  # of a chunk's arrays

SIZE = 1 << 17  # elements: half a megabyte, which the second cache of a core holds


@contextmanager
def within(variable: ContextVar[Value], value: Value) -> Iterator[None]:
    """``variable`` has this ``value`` within it."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@dataclass(frozen=True)
class Threads:
    """A stream for each; within ``alone`` each has its matrix products to itself."""

    streams: Sequence[mx.Stream]
    alone: Callable[[], AbstractContextManager[None]]


_threads: ContextVar[Threads | None] = ContextVar("threads", default=None)


def shared_by(threads: Threads) -> AbstractContextManager[None]:
    """Within it these threads compute the chunks, in parallel and at once."""
    return within(_threads, threads)


def thread_count() -> int:
    """How many threads share the chunks here and now."""
    return len(found.streams) if (found := _threads.get()) else 1


def worth_sharing(elements: int) -> bool:
    """Whether several threads share the chunks, and so many elements gain by it."""
    return thread_count() > 1 and elements >= 2 * SIZE


def each_chunk(form: Form, chunks: Iterable[Chunk]) -> list[mx.array]:
    """``form`` of each chunk; on each thread, one after the other."""
    if (threads := _threads.get()) is None:
        return _chained(form, chunks, [mx.default_stream(mx.default_device())])
    chunks = [list(chunk) for chunk in chunks]
    mx.eval(chunks)  # while the matrix products that led to them have all threads
    with threads.alone(), within(_threads, None):
        done = _chained(form, chunks, threads.streams)
        mx.eval(done)
    return done


def _chained(
    form: Form, chunks: Iterable[Chunk], streams: Sequence[mx.Stream]
) -> list[mx.array]:
    done: list[mx.array] = []
    for chunk in chunks:
        stream = streams[len(done) % len(streams)]
        before = [done[-len(streams)]] if len(done) >= len(streams) else []
        with mx.stream(stream):
            # MLX would do the first operation of all chunks first, but for this.
            done.append(form(*mx.depends(list(chunk), before)))
    return done


def of_length(length: int, x: mx.array, axis: int = 0) -> list[mx.array]:
    """Chunks of this length along the axis, the last of what is left."""
    return list(mx.split(x, range(length, x.shape[axis], length), axis=axis))


def equal(count: int, x: mx.array, axis: int = 0) -> list[mx.array]:
    """So many chunks along the axis, as equal as can be."""
    length = x.shape[axis]
    return list(mx.split(x, [length * i // count for i in range(1, count)], axis=axis))


def by_rows(form: Form, x: mx.array, width: int = 1) -> mx.array:
    """``form``, which takes any number of rows of ``width``, of ``x``: in chunks if large."""
    if x.size < 4 * SIZE:
        return form(x)
    chunks = of_length(max(1, SIZE // width), x.reshape(-1, width))
    return mx.concatenate(each_chunk(form, zip(chunks, strict=True))).reshape(x.shape)
