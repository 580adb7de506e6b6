"""A forward pass on all cores of a plain CPU, where MLX computes most operations on one."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import mlx.core as mx

from . import kernels

Model = Callable[[mx.array], mx.array]


def run(model: Model, x: mx.array) -> mx.array:
    """``model(x)``, computed; on a plain CPU the cores share the (B, ...) batch.

    As many as the BLAS library has threads, which ``OMP_NUM_THREADS`` sets: instead of all
    of them in each matrix product, each then does all that its pictures need.
    """
    with sharing(len(x)) as share:
        y = share(model, x)
        mx.eval(y)
    return y


@contextmanager
def sharing(batch: int) -> Iterator[Callable[[Model, mx.array], mx.array]]:
    """What gives ``model(x)``, to be computed before the context ends, as ``run`` does it."""
    keep_memory()
    parts = min(_threads(), batch)
    with _single_threaded() if parts > 1 else nullcontext():
        yield partial(_shared, parts)


def _shared(parts: int, model: Model, x: mx.array) -> mx.array:
    parts = min(parts, len(x)) if kernels.is_fast(x) else 1
    if parts == 1:
        return model(x)
    ends = [len(x) * i // parts for i in range(1, parts)]
    found = []
    for number, part in enumerate(mx.split(x, ends)):
        with mx.stream(_stream(number)):
            found.append(model(part))
    return mx.concatenate(found)


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
