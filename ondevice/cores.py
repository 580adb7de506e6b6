"""A forward pass on all cores of a plain CPU, where MLX computes most operations on one."""

from __future__ import annotations

import ctypes
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import mlx.core as mx

from . import kernels

if TYPE_CHECKING:
    import numpy as np

    Numbers: TypeAlias = np.ndarray[Any, Any]

Model = Callable[[mx.array], mx.array]
Tag = TypeVar("Tag")


def run(model: Model, x: mx.array) -> mx.array:
    """``model(x)``, computed; on a plain CPU the cores share the (B, ...) batch.

    As many as the BLAS library has threads, which ``OMP_NUM_THREADS`` sets: instead of all
    of them in each matrix product, each then does all that its pictures need.
    """
    keep_memory()
    parts = min(_threads(), len(x)) if kernels.is_fast(x) else 1
    if parts == 1:
        y = model(x)
        mx.eval(y)
        return y
    with _single_threaded():
        ends = [len(x) * i // parts for i in range(1, parts)]
        found = []
        for number, part in enumerate(mx.split(x, ends)):
            with mx.stream(_stream(number)):
                found.append(model(part))
        y = mx.concatenate(found)
        mx.eval(y)
    return y


def run_each(
    model: Model, batches: Iterable[tuple[Tag, Numbers]]
) -> Iterator[tuple[Tag, Numbers]]:
    """``model`` of each (B, H, W, ...) batch, under its tag, in order; the next ones at work.

    On a plain CPU each core has a batch of its own: to share one would leave it operations
    that are too small. What it has at once is bounded in pixels, and so is memory; it is the
    same on any number of cores, and so are the numbers. Arrays that ``model`` refers to have
    to be computed before.
    """
    keep_memory()
    return (_on_cores if kernels.is_plain_cpu() else _one_ahead)(model, batches)


def _one_ahead(
    model: Model, batches: Iterable[tuple[Tag, Numbers]]
) -> Iterator[tuple[Tag, Numbers]]:
    import numpy as np

    waiting: tuple[Tag, mx.array] | None = None
    for tag, batch in batches:
        y = model(mx.array(batch))
        mx.async_eval(y)
        if waiting:
            mx.eval(waiting[1])  # without the GIL, which np.asarray would keep
            yield waiting[0], np.asarray(waiting[1])
        waiting = tag, y
    if waiting:
        yield waiting[0], np.asarray(waiting[1])


PIXELS = 1 << 20  # that a core works on at once


def _on_cores(
    model: Model, batches: Iterable[tuple[Tag, Numbers]]
) -> Iterator[tuple[Tag, Numbers]]:
    import numpy as np

    cores = _threads()
    running: deque[tuple[Tag, list[Future[Numbers]]]] = deque()
    pool = ThreadPoolExecutor(cores)
    try:
        with _single_threaded():
            for tag, batch in batches:
                parts = min(len(batch), -(-math.prod(batch.shape[:3]) // PIXELS))
                jobs = [
                    # Each thread has its own default stream, but not what ``plain`` set.
                    pool.submit(copy_context().run, _computed, model, part)
                    for part in np.array_split(batch, parts)
                ]
                running.append((tag, jobs))
                if len(running) > -(-cores // parts):
                    yield _joined(*running.popleft())
            while running:
                yield _joined(*running.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _computed(model: Model, batch: Numbers) -> Numbers:
    import numpy as np

    y = model(mx.array(batch))
    mx.eval(y)  # without the GIL, which np.asarray would keep
    return np.asarray(y)


def _joined(tag: Tag, jobs: list[Future[Numbers]]) -> tuple[Tag, Numbers]:
    import numpy as np

    return tag, np.concatenate([job.result() for job in jobs])


@cache
def _stream(number: int) -> mx.Stream:
    return mx.new_stream(mx.cpu)


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


def _single_threaded() -> Any:
    blas = _blas()
    return blas.limit(limits=1) if blas else nullcontext()


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
