"""Batches of embeddings that survive a kill: records of one size, appended to a file.

A record says by its checksum whether it is whole and of this job, so nothing has to be
written or removed in any particular order: what was left torn, or by an earlier job, is cut
off, and everything before it counts.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np

from ...errors import OutputError

Record: TypeAlias = np.ndarray[Any, np.dtype[np.void]]

# What a position in a batch has; behind the last file they are absent.
ABSENT, ROW, SKIPPED = 0, 1, 2
SYNC_SECONDS = 5  # what a power failure costs; a killed process loses no whole record


def record_type(batch_size: int, dim: int) -> np.dtype[np.void]:
    """The type of one batch: its index, and for each position a row or why there is none."""
    return np.dtype(
        [
            ("batch", "<u8"),
            ("status", "u1", (batch_size,)),
            ("rows", "<f4", (batch_size, dim)),
            ("crc", "<u4"),
        ]
    )


def make_record(
    kind: np.dtype[np.void], batch: int, rows: Any, reasons: list[str | None], *, seed: int = 0
) -> Record:
    """A record of ``rows`` (batch_size, dim), those with a reason skipped.

    The last batch has fewer reasons than rows: those behind are absent.

    ``seed`` is the job's: its checksums are no other's.
    """
    record = np.zeros(1, kind)
    record["batch"] = batch
    for position, reason in enumerate(reasons):
        row = rows[position] if reason is None else _as_row(reason, kind)
        record["status"][0, position] = ROW if reason is None else SKIPPED
        record["rows"][0, position] = row
    record["crc"] = _checksum(record, seed)
    return record


def _as_row(reason: str, kind: np.dtype[np.void]) -> Any:
    size = kind["rows"].itemsize // kind["rows"].shape[0]
    return np.frombuffer(reason.encode()[:size].ljust(size, b"\0"), "<f4")


def reason_of(row: Any) -> str:
    """Why a position was skipped: what stands in its row instead."""
    return bytes(np.ascontiguousarray(row).tobytes()).rstrip(b"\0").decode(errors="ignore")


def _checksum(record: Record, seed: int) -> int:
    return zlib.crc32(record.tobytes()[:-4], seed)


def whole_records(path: Path, kind: np.dtype[np.void], *, seed: int = 0) -> Iterator[Record]:
    """The records of a file up to the first that is not whole, or not of this job."""
    with path.open("rb") as file:
        while len(data := file.read(kind.itemsize)) == kind.itemsize:
            record = np.frombuffer(data, kind)
            if record["crc"][0] != _checksum(record, seed):
                return
            yield record


class Journal:
    """A file of records that this process alone appends to. Raises OutputError if it cannot."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._synced = time.monotonic()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until we end, however we do
        except BlockingIOError:
            os.close(self._fd)
            raise OutputError(f"{path.parent} is in use by another process") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def cut(self, length: int) -> None:
        """Keep the first ``length`` bytes; records are appended after them."""
        os.ftruncate(self._fd, length)
        os.lseek(self._fd, 0, os.SEEK_END)

    def append(self, record: Record) -> None:
        """Write ``record`` at the end. Raises OutputError, such as for a full disk."""
        data = record.tobytes()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self.sync()
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error

    def sync(self) -> None:
        """Have the disk keep what was appended, even through a power failure."""
        os.fsync(self._fd)
        self._synced = time.monotonic()
