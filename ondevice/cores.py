"""A forward pass on all cores of a plain CPU, where MLX computes most operations on one."""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import mlx.core as mx

from . import kernels, pieces

if TYPE_CHECKING:
    import numpy as np

    Numbers: TypeAlias = np.ndarray[Any, Any]

Model = Callable[[mx.array], mx.array]
Tag = TypeVar("Tag")


def run(model: Model, x: mx.array) -> mx.array:
    """``model(x)``, computed; on a plain CPU the cores share the (B, ...) batch.

    As many as the BLAS library has threads, which ``OMP_NUM_THREADS`` sets: instead of all
    of them in each matrix product, each then does all that its pictures need, ``PIXELS`` at
    once. Of a single picture they share each matrix product and the pieces of what is large.
    """
    keep_memory()
    threads = _threads() if kernels.is_fast(x) else 1
    if threads == 1 or len(x) <= 1:
        with _taking_turns(threads):
            y = model(x)
            mx.eval(y)
        return y
    cores = min(threads, len(x))
    rounds = -(-math.prod(x.shape[:3]) // (PIXELS * cores))
    count = min(len(x), rounds * cores)
    parts = pieces.equal(count, x)
    found: list[mx.array] = []
    with _blas_shared_by(cores):
        for first in range(0, count, cores):
            found += _side_by_side(model, parts[first : first + cores])
            mx.eval(found)
        y = mx.concatenate(found)
        mx.eval(y)
    return y


def _taking_turns(cores: int) -> AbstractContextManager[None]:
    if cores == 1:
        return nullcontext()
    return pieces.taken_by(pieces.Cores(_streams(cores), partial(_blas_shared_by, cores)))


PIXELS = 1 << 20  # that a core works on at once


def run_each(
    model: Model, batches: Iterable[tuple[Tag, Numbers]]
) -> Iterator[tuple[Tag, Numbers]]:
    """``model`` of each (B, H, W, ...) batch, under its tag, in order; the next ones at work.

    On a plain CPU each core has a batch of its own: to share one would leave it operations
    that are too small. Batches of more than ``PIXELS`` are cut, which bounds the memory. The
    cuts are the same on any number of cores, and so are the numbers.
    """
    import numpy as np

    keep_memory()
    most = PIXELS if kernels.is_plain_cpu() else sys.maxsize
    done: list[Numbers] = []
    for (tag, is_last), rows in _one_round_ahead(model, _cut(batches, most)):
        done.append(rows)
        if is_last:
            yield tag, np.concatenate(done)
            done.clear()


def _cut(
    batches: Iterable[tuple[Tag, Numbers]], pixels: int
) -> Iterator[tuple[tuple[Tag, bool], Numbers]]:
    """Each batch in equal parts of so many pixels at most; whether a part is the last one."""
    import numpy as np

    for tag, batch in batches:
        count = min(len(batch), -(-math.prod(batch.shape[:3]) // pixels))
        for number, part in enumerate(np.array_split(batch, count), start=1):
            yield (tag, number == count), part


def _one_round_ahead(
    model: Model, parts: Iterator[tuple[Tag, Numbers]]
) -> Iterator[tuple[Tag, Numbers]]:
    """A part for each core at once; what they gave is read when they have the next ones."""
    cores = _threads() if kernels.is_plain_cpu() else 1
    with _blas_shared_by(cores):
        running: list[tuple[Tag, mx.array]] = []
        while given := list(islice(parts, cores)):
            found = _side_by_side(model, [mx.array(part) for _, part in given])
            mx.async_eval(found)
            yield from _read(running)
            running = [(tag, y) for (tag, _), y in zip(given, found, strict=True)]
        yield from _read(running)


def _read(running: Iterable[tuple[Tag, mx.array]]) -> Iterator[tuple[Tag, Numbers]]:
    import numpy as np

    for tag, y in running:
        mx.eval(y)  # without the GIL, which np.asarray would keep
        yield tag, np.asarray(y)


def _side_by_side(model: Model, parts: list[mx.array]) -> list[mx.array]:
    """``model`` of each part, each on a stream, and so a thread, of its own."""
    if len(parts) == 1:
        return [model(parts[0])]
    found = []
    for stream, part in zip(_streams(len(parts)), parts, strict=True):
        with mx.stream(stream):
            found.append(model(part))
    return found


_here = threading.local()


def _streams(count: int) -> list[mx.Stream]:
    """So many streams, of the calling thread: MLX has them nowhere else."""
    streams: list[mx.Stream] = _here.__dict__.setdefault("streams", [])
    streams += [mx.new_stream(mx.cpu) for _ in range(count - len(streams))]
    return streams[:count]


@cache
def _blas() -> Any:
    """The BLAS libraries of this process, or None."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:  # it is installed on Linux only
        return None
    return ThreadpoolController().select(user_api="blas")


def _threads() -> int:
    blas = _blas()
    return max((pool["num_threads"] for pool in blas.info()), default=1) if blas else 1


_limit = threading.Lock()


@contextmanager
def _blas_shared_by(cores: int) -> Iterator[None]:
    """Where several cores compute side by side, each has the BLAS library for one thread.

    That is one limit for the whole process: a thread that comes while another has set it
    leaves it alone, or what the last one gave back would be the limit.
    """
    blas = _blas()
    if cores > 1 and blas and _limit.acquire(blocking=False):
        try:
            with blas.limit(limits=1):
                yield
        finally:
            _limit.release()
    else:
        yield


@cache
def keep_memory() -> None:
    """Let glibc keep what a forward pass has freed for the next one.

    Each large buffer would else come from the system and go back, page by page: a fifth of
    the time.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3
        for option in (trim_threshold, mmap_threshold):
            libc.mallopt(option, 1 << 30)
