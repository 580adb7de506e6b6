"""The folder ``OUT.partial``, where an unfinished encode waits for whoever goes on with it.

``job.json`` says what is computed, ``paths`` and ``path_ends`` on which files, ``0.rows``,
``1.rows``, ... (one a rank) hold the batches that are done, in the order they were.
``0.states``, ... tell whether the files are what they were, on each rank's machine by its own
clock: the SHA-256 of all their sizes and times of change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import OutputError
from .journal import Journal, Record, record_type, whole_records


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is computed: the same values to rounding, however often it is interrupted."""

    model: str
    weights: str  # SHA-256 of the parameters
    preprocess: dict[str, Any]
    normalized: bool
    dim: int
    batch_size: int
    max_level: float | None = None  # that is white in images of more than 8 bits
    images: int
    paths: str  # SHA-256 of the list of files
    version: int = 1

    def to_json(self) -> str:
        """As it is kept in ``job.json``."""
        return json.dumps(asdict(self), indent=1)


class Paths:
    """A list of paths on the disk, of which only what is asked for is in memory."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._ends, self._text = folder / f"{prefix}path_ends", folder / f"{prefix}paths"

    def write(self, paths: Iterable[str | os.PathLike[str]]) -> tuple[int, str, str]:
        """Store ``paths``: how many they are, their SHA-256, and that of the files' states."""
        count = end = 0
        digest, states = hashlib.sha256(), hashlib.sha256()
        with self._text.open("wb") as text, self._ends.open("wb") as ends:
            for path in paths:
                name = os.fsencode(path) + b"\0"
                count, end = count + 1, end + len(name)
                digest.update(name)
                states.update(_state(path))
                text.write(name)
                ends.write(end.to_bytes(8, "little"))
            for file in (text, ends):
                file.flush()
                os.fsync(file.fileno())
        return count, digest.hexdigest(), states.hexdigest()

    def read(self, start: int, stop: int) -> list[bytes]:
        """The paths of these positions."""
        first = max(start - 1, 0)
        with self._ends.open("rb") as ends, self._text.open("rb") as text:
            ends.seek(8 * first)
            known = np.frombuffer(ends.read(8 * (stop - first)), "<i8")
            begin = int(known[0]) if start else 0
            text.seek(begin)
            return text.read(int(known[-1]) - begin).split(b"\0")[:-1] if len(known) else []

    def rename(self, other: Paths) -> None:
        """Take the place of ``other``."""
        self._ends.replace(other._ends)
        self._text.replace(other._text)


class Unfinished:
    """The folder of one job, as one rank sees it: a context, in which its journal is open."""

    def __init__(self, out: Path, rank: int) -> None:
        self.folder = out.with_name(f"{out.name}.partial")
        self.rank = rank
        self.paths = Paths(self.folder)
        self._job = self.folder / "job.json"
        self._known = self.folder / f"{rank}.states"

    def __enter__(self) -> Unfinished:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror}") from error
        self.journal = Journal(self.folder / f"{self.rank}.rows")
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.__exit__(None, None, None)
        if not self._job.exists():  # nothing was begun
            self.remove()

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def list_paths(self, paths: Iterable[str | os.PathLike[str]]) -> tuple[int, str]:
        """Store ``paths`` until the job begins: how many they are, and their SHA-256.

        Raises OutputError.
        """
        try:
            count, digest, self._states = Paths(self.folder, f"new{self.rank}.").write(paths)
            return count, digest
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror}") from error

    def begin(self, job: Job) -> None:
        """Start ``job``, or go on with it. Raises OutputError if another is unfinished."""
        found = self._read_job()
        if found and (apart := _differences(found, asdict(job)) or self._changed()):
            raise OutputError(
                f"{self.folder} is an unfinished encode of other {', '.join(apart)}; finish "
                "it as it was begun, or delete it"
            )
        Paths(self.folder, f"new{self.rank}.").rename(self.paths)
        _write_synced(self._known, self._states)
        if not found:
            _write_synced(self._job, job.to_json(), f".{self.rank}")
        self.kind = record_type(job.batch_size, job.dim)
        self.batches = -(-job.images // job.batch_size)
        self.seed = zlib.crc32(job.to_json().encode())
        kept = self._whole(self.journal.path) if found else ()
        self.journal.cut(sum(record.nbytes for record in kept))

    def _changed(self) -> list[str]:
        """What is other if the files are not what they were; nothing on a machine new to it."""
        known = self._known.read_bytes() if self._known.exists() else self._states.encode()
        return [] if known == self._states.encode() else ["contents of files"]

    def _whole(self, path: Path) -> Iterator[Record]:
        return whole_records(path, self.kind, seed=self.seed)

    def _read_job(self) -> dict[str, Any]:
        try:
            found = json.loads(self._job.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise OutputError(f"{self._job} is damaged ({error}); delete its folder") from error
        return found if isinstance(found, dict) else {"version": None}

    def scan(self) -> Any:
        """Which batches are done in any rank's journal that is seen here, as a byte each."""
        self._journals = sorted(self.folder.glob("*.rows"))
        self._positions = np.full((self.batches, 2), -1, np.int32)  # journal, record
        for j, path in enumerate(self._journals):
            for i, record in enumerate(self._whole(path)):
                if (batch := int(record["batch"][0])) < self.batches:
                    self._positions[batch] = j, i
        return (self._positions[:, 0] >= 0).astype(np.uint8)

    def records(self, batches: Iterable[int] | None = None) -> Iterator[Record]:
        """The records of these batches, or of all, that the last scan found."""
        files = [path.open("rb") for path in self._journals]
        try:
            for batch in range(self.batches) if batches is None else batches:
                j, i = self._positions[batch].tolist()
                files[j].seek(i * self.kind.itemsize)
                yield np.frombuffer(files[j].read(self.kind.itemsize), self.kind)
        finally:
            for file in files:
                file.close()


# What a field of a job is called in a message.
_CALLED = {
    "normalized": "scaling",
    "max_level": "white level",
    "images": "files",
    "paths": "files",
    "dim": "model",
}


def _state(path: str | os.PathLike[str]) -> bytes:
    """What changes with a file's contents, and is known without reading them."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return b"none\n"
    return b"%d %d\n" % (found.st_size, found.st_mtime_ns)


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    wanted = json.loads(json.dumps(wanted))
    names = [_CALLED.get(k, k) for k, v in wanted.items() if found.get(k) != v]
    return list(dict.fromkeys(names))


def _write_synced(path: Path, text: str, suffix: str = ".new") -> None:
    partial = path.with_name(path.name + suffix)
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
