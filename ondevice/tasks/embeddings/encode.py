"""Embeddings of any number of images: decoded while the model runs, kept on the disk.

Files are put into batches before any is read, and no batch is shorter than the others: in the
position of a file that cannot be read, and behind the last file, the image is black. So a row
never depends on what else could be read, on where an interrupted run went on, or on how many
ranks and threads there are: with one kind of processor and libraries not by a bit, with others
by no more than rounding.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...config import Preprocess
from ...cpu import blas
from ...cpu.threads import run_each
from ...errors import ConfigError, ImageError, OnDeviceError
from ...image.open import ImageFile, name_of
from ...image.preprocess import normalize as normalize_pixels, resize_and_crop
from ...nn.fuse import fuse
from ...nn.layers import unit
from ...weights.hash import weights_hash
from ...weights.output import replacing
from ..ranks import Ranks
from .journal import ROW, SKIPPED, Record, make_record, reason_of
from .store import Table, check_out, write
from .unfinished import Job, Unfinished

if TYPE_CHECKING:
    from ...image.preprocess import OnError, Pixels

    Decoded: TypeAlias = Pixels | str  # or why the file is no image
    Embed: TypeAlias = Callable[[mx.array], mx.array]

AHEAD = 3  # batches decoded before the model takes them, at least
TASK = 4  # images that a thread decodes in a row: handing over costs as much as a small one


@dataclass(frozen=True)
class Encoded:
    """What ``encode`` made: ``images`` rows of ``dim`` values; ``skipped`` files have none."""

    out: Path
    model: str
    images: int
    dim: int
    skipped: int


def encode(
    model: nn.Module,
    paths: Iterable[str | os.PathLike[str]],
    out: str | Path,
    *,
    batch_size: int = 16,
    workers: int | None = None,
    normalize: bool = True,
    max_level: float | None = None,
    force: bool = False,
    on_error: OnError | None = None,
    on_progress: Callable[[int, int], object] | None = None,
    group: mx.distributed.Group | None = None,
) -> Encoded:
    """Write the embedding of each image, (images, dim), to a .safetensors, .npz or .parquet.

    Rows are in the order of ``paths``, of length 1 with ``normalize``. Files that are no usable
    images get no row; ``on_error`` is given each at the end: its position and the ImageError.
    What is done is kept in the folder ``OUT.partial``: after an interruption of any kind, the
    same call goes on there, and the file has the same bytes. (Batches that another processor or
    BLAS library makes agree within 1e-4 of the rows' standard deviation.) A file that changed
    meanwhile is an OutputError. Memory does not depend on the number of paths. ``max_level`` is
    as in ``open_image``. ``on_progress`` is given, after each batch, how many of how many files
    are done. The processes of a ``group``, on whatever machines, share the work; rank 0 writes.

    Raises ConfigError, OutputError; ImageError if no file is an image.
    """
    out, ranks = Path(out), Ranks(group)
    check_out(out, force=force)
    blas.advise()
    with Unfinished(out, ranks.rank) as unfinished:
        images, digest = unfinished.list_paths(paths)
        fused = fuse(model)
        job = _job(model, fused, batch_size, normalize, max_level, images, digest)
        ranks.agree(hashlib.sha256(job.to_json().encode()).digest(), "models, files or options")
        unfinished.begin(job)
        _encode_missing(fused, unfinished, job, ranks, workers, on_progress)
        _collect(unfinished, ranks)
        rows = _merge(unfinished, job, out, force, on_error) if ranks.rank == 0 else 0
        written = ranks.from_first(rows)
    unfinished.remove()
    if not written:
        raise ImageError(f"none of {images} files is a usable image; nothing is written")
    return Encoded(out, job.model, written, job.dim, images - written)


def embedder(model: nn.Module) -> Embed:
    """What makes rows of a model's inputs: for an index and for what is looked up in it."""
    if "embedding" not in (kinds := model.signature.kinds):
        raise ConfigError(f"{model.info.name} gives no embedding of an image: it gives {kinds}")
    pooled: Embed = model.pooled
    return pooled


def _job(
    model: nn.Module,
    fused: nn.Module,
    batch_size: int,
    normalize: bool,
    max_level: float | None,
    images: int,
    paths: str,
) -> Job:
    if not images:
        raise ImageError("no files were given")
    spec: Preprocess = model.info.preprocess
    row = embedder(fused)(mx.zeros((batch_size, spec.size, spec.size, 3)))  # never computed
    return Job(
        model=model.info.name,
        weights=weights_hash(model),
        preprocess=spec.to_dict(),
        normalized=normalize,
        max_level=max_level,
        dim=row.shape[-1],
        batch_size=batch_size,
        images=images,
        paths=paths,
    )


def _encode_missing(
    model: nn.Module,
    unfinished: Unfinished,
    job: Job,
    ranks: Ranks,
    workers: int | None,
    on_progress: Callable[[int, int], object] | None,
) -> None:
    """This rank's share of the batches that no rank has done, into its journal."""
    done = ranks.gather(unfinished.scan()).any(axis=0)
    share = np.flatnonzero(~done)[ranks.rank :: ranks.size]
    count, spec = int(done.sum()), model.info.preprocess
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # here, once: in threads it is undone at random
        decoded = _decoded(unfinished, spec, job, share, workers or os.cpu_count() or 1)
        for record in _records(model, spec, unfinished, job, decoded):
            unfinished.journal.append(record)
            count += ranks.size  # as far as one can know of the others
            if on_progress:
                on_progress(min(count * job.batch_size, job.images), job.images)
    unfinished.journal.sync()


def _decoded(
    unfinished: Unfinished, spec: Preprocess, job: Job, batches: Iterable[int], workers: int
) -> Iterator[tuple[int, list[Decoded]]]:
    """The images of each batch; those of the next ones are decoded meanwhile."""
    waiting: deque[tuple[int, list[Future[list[Decoded]]]]] = deque()
    ahead = AHEAD + workers * TASK // job.batch_size  # no thread is idle
    with ThreadPoolExecutor(workers) as pool:  # PIL decodes and resizes without the GIL
        for batch in batches:
            if len(waiting) == ahead:
                yield _results(*waiting.popleft())
            paths = unfinished.paths.read(*_span(batch, job))
            tasks = [paths[i : i + TASK] for i in range(0, len(paths), TASK)]
            waiting.append(
                (batch, [pool.submit(_decode_all, task, spec, job.max_level) for task in tasks])
            )
        while waiting:
            yield _results(*waiting.popleft())


def _results(batch: int, futures: list[Future[list[Decoded]]]) -> tuple[int, list[Decoded]]:
    return int(batch), [image for future in futures for image in future.result()]


def _span(batch: int, job: Job) -> tuple[int, int]:
    start = int(batch) * job.batch_size
    return start, min(start + job.batch_size, job.images)


def _decode_all(paths: list[bytes], spec: Preprocess, max_level: float | None) -> list[Decoded]:
    return [_decode(path, spec, max_level) for path in paths]


def _decode(path: bytes, spec: Preprocess, max_level: float | None) -> Decoded:
    name = os.fsdecode(path)
    try:
        return resize_and_crop(ImageFile(name, max_level), spec)
    except ImageError as error:
        return str(error).removeprefix(name_of(name)).strip()


def _records(
    model: nn.Module,
    spec: Preprocess,
    unfinished: Unfinished,
    job: Job,
    decoded: Iterable[tuple[int, list[Decoded]]],
) -> Iterator[Record]:
    """The record of each batch; the model is at work on the next one meanwhile."""
    embed = embedder(model)

    def rows(pixels: mx.array) -> mx.array:
        y = embed(normalize_pixels(pixels, spec)).astype(mx.float32)
        return unit(y) if job.normalized else y

    for (batch, reasons), found in run_each(rows, _batches(spec, job, decoded)):
        yield make_record(unfinished.kind, batch, found, reasons, seed=unfinished.seed)


def _batches(
    spec: Preprocess, job: Job, decoded: Iterable[tuple[int, list[Decoded]]]
) -> Iterator[tuple[tuple[int, list[str | None]], Pixels]]:
    """The pixels of each batch, with its index and the reason for each skipped image."""
    for batch, images in decoded:
        pixels = np.zeros((job.batch_size, spec.size, spec.size, 3), np.uint8)
        reasons = [image if isinstance(image, str) else None for image in images]
        for position, image in enumerate(images):
            pixels[position] = 0 if isinstance(image, str) else image
        yield (batch, reasons), pixels


def _collect(unfinished: Unfinished, ranks: Ranks) -> None:
    """Send rank 0 the batches that it does not see: where ranks share no disk, all others."""
    ranks.wait()
    held = ranks.gather(unfinished.scan())
    earlier = held[: ranks.rank].any(axis=0)
    if lost := int((~held.any(axis=0)).sum()):
        raise OnDeviceError(f"{lost} batches are lost; run the same command again")
    share: Any = np.flatnonzero(held[ranks.rank] & ~earlier) if ranks.rank else ()
    records = (record.tobytes() for record in unfinished.records(share))
    for data in ranks.send_to_first(records, unfinished.kind.itemsize):
        unfinished.journal.append(np.frombuffer(data, unfinished.kind))
    unfinished.scan()


def _merge(
    unfinished: Unfinished, job: Job, out: Path, force: bool, on_error: OnError | None
) -> int:
    """Write the file and report what has no row in it; how many rows it has."""
    table = Table(_info(job), job.dim, lambda: _rows(unfinished, job))
    for position, path, reason in _skipped(unfinished, job):
        if on_error:
            on_error(position, ImageError(f"{name_of(os.fsdecode(path))} {reason}"))
    if table.rows:
        merged = unfinished.folder / f"merged{out.suffix}"  # where it is found after a kill
        write(merged, table)
        with replacing(out, force=force) as partial:
            merged.replace(partial)
    return table.rows


def _info(job: Job) -> dict[str, Any]:
    names = ("model", "weights", "preprocess", "normalized", "dim")
    return {name: getattr(job, name) for name in names}


def _rows(unfinished: Unfinished, job: Job) -> Iterator[tuple[list[bytes], Any]]:
    for batch, record in enumerate(unfinished.records()):
        good = record["status"][0] == ROW
        paths = unfinished.paths.read(*_span(batch, job))
        yield list(compress(paths, good)), record["rows"][0][good]


def _skipped(unfinished: Unfinished, job: Job) -> Iterator[tuple[int, bytes, str]]:
    for batch, record in enumerate(unfinished.records()):
        positions = np.flatnonzero(record["status"][0] == SKIPPED).tolist()
        paths = unfinished.paths.read(*_span(batch, job)) if positions else []
        for position in positions:
            reason = reason_of(record["rows"][0, position])
            yield batch * job.batch_size + position, paths[position], reason
