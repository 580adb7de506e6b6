"""A forward pass on all threads of a plain CPU, where MLX computes most operations on one."""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import mlx.core as mx

from . import chunks, kernels

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

Model = Callable[[mx.array], mx.array]
Tag = TypeVar("Tag")


def run(model: Model, x: mx.array) -> mx.array:
    """``model(x)``, computed; on a plain CPU several threads share the (B, ...) batch.

    As many as the BLAS library has threads, which ``OMP_NUM_THREADS`` sets: instead of all
    of them in each matrix product, each then does all that its images need, ``PIXELS`` at
    once. Of a single image they share each matrix product and the chunks of what is large.

    Two images or more give the same bits each time, whatever else the process computes. With
    one image beside other work, another size of the batch, number of threads, processor or
    BLAS library, the same products are added in another order: the values then agree within
    1e-4 of the output's standard deviation.
    """
    keep_memory()
    threads = _threads() if kernels.is_fast(x) else 1
    if threads == 1 or len(x) <= 1:
        with _sharing_chunks(threads):
            y = model(x)
            mx.eval(y)
        return y
    threads = min(threads, len(x))
    rounds = -(-math.prod(x.shape[:3]) // (PIXELS * threads))
    count = min(len(x), rounds * threads)
    parts = chunks.equal(count, x)
    found: list[mx.array] = []
    with _blas_alone():
        for first in range(0, count, threads):
            found += _side_by_side(model, parts[first : first + threads])
            mx.eval(found)
        y = mx.concatenate(found)
        mx.eval(y)
    return y


def _sharing_chunks(threads: int) -> AbstractContextManager[None]:
    if threads == 1:
        return nullcontext()
    return chunks.shared_by(chunks.Threads(_streams(threads), _blas_alone))


PIXELS = 1 << 20  # that a thread works on at once


def run_each(model: Model, batches: Iterable[tuple[Tag, Array]]) -> Iterator[tuple[Tag, Array]]:
    """``model`` of each (B, H, W, ...) batch, under its tag, in order; the next ones at work.

    On a plain CPU each thread has a batch of its own: to share one would leave it operations
    that are too small. Batches of more than ``PIXELS`` are cut, which bounds the memory. The
    cuts and the sums are the same on any number of threads, and so are the bits, with one
    processor and BLAS library; with another the values agree as those of ``run`` do.
    """
    import numpy as np

    keep_memory()
    most = PIXELS if kernels.is_plain_cpu() else sys.maxsize
    done: list[Array] = []
    for (tag, is_last), rows in _one_round_ahead(model, _cut(batches, most)):
        done.append(rows)
        if is_last:
            yield tag, np.concatenate(done)
            done.clear()


def _cut(
    batches: Iterable[tuple[Tag, Array]], pixels: int
) -> Iterator[tuple[tuple[Tag, bool], Array]]:
    """Each batch in equal parts of so many pixels at most; whether a part is the last one."""
    import numpy as np

    for tag, batch in batches:
        count = min(len(batch), -(-math.prod(batch.shape[:3]) // pixels))
        for number, part in enumerate(np.array_split(batch, count), start=1):
            yield (tag, number == count), part


def _one_round_ahead(
    model: Model, parts: Iterator[tuple[Tag, Array]]
) -> Iterator[tuple[Tag, Array]]:
    """A part for each thread at once; what they gave is read when they have the next ones."""
    on_cpu = kernels.is_plain_cpu()
    threads = _threads() if on_cpu else 1
    with _blas_alone() if on_cpu else nullcontext():
        running: list[tuple[Tag, mx.array]] = []
        while given := list(islice(parts, threads)):
            found = _side_by_side(model, [mx.array(part) for _, part in given])
            mx.async_eval(found)
            yield from _read(running)
            running = [(tag, y) for (tag, _), y in zip(given, found, strict=True)]
        yield from _read(running)


def _read(running: Iterable[tuple[Tag, mx.array]]) -> Iterator[tuple[Tag, Array]]:
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
    """How many the BLAS library has where nothing here limits it."""
    with _limit.lock:
        return _limit.threads or _allowed()


def _allowed() -> int:
    blas = _blas()
    return max((pool["num_threads"] for pool in blas.info()), default=1) if blas else 1


@dataclass
class _Limit:
    """One for the whole process: the first to come sets it, the last to leave lifts it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    threads: int = 0  # without it, while it is set
    held: Any = None


_limit = _Limit()


@contextmanager
def _blas_alone() -> Iterator[None]:
    """Within it each thread, even a single one, computes its own matrix products alone.

    With several threads OpenBLAS cuts its sums elsewhere, which changes their last bits.
    """
    if not (blas := _blas()):
        yield
        return
    with _limit.lock:
        if not _limit.users:
            _limit.threads, _limit.held = _allowed(), blas.limit(limits=1)
            _let_any_thread_lift_it()
        _limit.users += 1
    try:
        yield
    finally:
        with _limit.lock:
            _limit.users -= 1
            if not _limit.users:
                _limit.held.restore_original_limits()
                _limit.threads = 0
                _let_any_thread_lift_it()


def _let_any_thread_lift_it() -> None:
    """threadpoolctl 3.8 and later: else only the thread that has set a limit may change it."""
    from threadpoolctl import OpenBLASController

    if clear := getattr(OpenBLASController, "clear_controlling_thread", None):
        clear()


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
