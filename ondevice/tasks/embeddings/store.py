"""Files of embeddings: rows, the path of each, and what made them. Written chunk by chunk.

safetensors: ``embeddings`` (N, C) float32, ``paths`` (bytes, each path ended by a zero) and
``path_ends`` (where each ends), the rest as JSON in the metadata. npz: the arrays
``embeddings``, ``paths`` and ``info`` (JSON), not compressed, so that they can be mapped.
parquet: columns ``path`` and ``embedding``, the rest as JSON in the schema's metadata.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, TypeAlias

import mlx.core as mx
import numpy as np

from ...errors import ConfigError, OutputError
from ...weights.output import check_free
from ...weights.safetensors import header

KEY = "ondevice.embeddings"  # where the JSON is
GROUP = 8 * 2**20  # bytes of a Parquet row group

Chunks: TypeAlias = Callable[[], Iterable[tuple[list[bytes], Any]]]  # paths and their rows


@dataclass
class Table:
    """What goes into a file; ``chunks`` can be called any number of times."""

    info: dict[str, Any]
    dim: int
    chunks: Chunks
    rows: int = field(init=False, default=0)
    path_bytes: int = field(init=False, default=0)
    longest: int = field(init=False, default=1)  # path, in characters

    def __post_init__(self) -> None:
        for paths, _ in self.chunks():
            self.rows += len(paths)
            self.path_bytes += sum(map(len, paths)) + len(paths)
            self.longest = max([self.longest, *(len(os.fsdecode(p)) for p in paths)])


def check_out(path: Path, *, force: bool) -> None:
    """Raises ConfigError or OutputError if embeddings cannot be written to ``path``."""
    if path.suffix not in _WRITERS:
        raise ConfigError(f"{path} has to end with {', '.join(_WRITERS)}")
    if path.suffix == ".parquet":
        check_pyarrow()
    check_free(path, force=force)


def check_pyarrow() -> None:
    """Raises ConfigError if pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise ConfigError("Parquet files need pyarrow: pip install 'ondevice[parquet]'")


def write(path: Path, table: Table) -> None:
    """Write ``table``: the same bytes for the same values. Raises OutputError."""
    try:
        _WRITERS[path.suffix](path, table)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _write_safetensors(path: Path, table: Table) -> None:
    described = {
        "path_ends": (mx.int64, [table.rows]),
        "embeddings": (mx.float32, [table.rows, table.dim]),
        "paths": (mx.uint8, [table.path_bytes]),
    }
    start, positions = header(described, {KEY: json.dumps(table.info)})
    end = 0
    with path.open("wb") as file:
        file.write(start)
        for paths, rows in table.chunks():
            ends = end + np.cumsum([len(p) + 1 for p in paths], dtype="<i8")
            end = int(ends[-1]) if paths else end
            names = b"".join(p + b"\0" for p in paths)
            for i, data in enumerate(
                (ends.tobytes(), np.asarray(rows, "<f4").tobytes(), names)
            ):
                file.seek(positions[i])
                file.write(data)
                positions[i] += len(data)


def _write_npz(path: Path, table: Table) -> None:
    name_type = np.dtype(f"<U{table.longest}")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with _array(archive, "embeddings", "<f4", (table.rows, table.dim)) as file:
            for _, rows in table.chunks():
                file.write(np.asarray(rows, "<f4").tobytes())
        with _array(archive, "paths", name_type, (table.rows,)) as file:
            for paths, _ in table.chunks():
                file.write(np.array([os.fsdecode(p) for p in paths], name_type).tobytes())
        info = np.array(json.dumps(table.info))
        with _array(archive, "info", info.dtype, ()) as file:
            file.write(info.tobytes())


@contextmanager
def _array(
    archive: zipfile.ZipFile, name: str, dtype: Any, shape: tuple[int, ...]
) -> Iterator[IO[bytes]]:
    """A file in the archive to write an array's elements to."""
    member = zipfile.ZipInfo(f"{name}.npy")  # its date is always the same
    with archive.open(member, "w", force_zip64=True) as file:
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        described = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, described)
        yield file


def _write_parquet(path: Path, table: Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"path": pa.string(), "embedding": pa.list_(pa.float32(), table.dim)}
    schema = pa.schema(columns, metadata={KEY: json.dumps(table.info)})
    # Neither a dictionary nor compression makes such values smaller.
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        for paths, rows in _groups(table, max(1, GROUP // (4 * table.dim))):
            # Parquet's text is UTF-8: other bytes become \xff.
            names = [p.decode("utf-8", "backslashreplace") for p in paths]
            lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), table.dim)
            writer.write_batch(pa.record_batch([pa.array(names), lists], schema=schema))


def _groups(table: Table, size: int) -> Iterator[tuple[list[bytes], Any]]:
    """The chunks of ``table`` put together, ``size`` rows or a few more at a time."""
    paths: list[bytes] = []
    rows = []
    for some_paths, some_rows in table.chunks():
        paths += some_paths
        rows.append(np.asarray(some_rows, "<f4"))
        if len(paths) >= size:
            yield paths, np.concatenate(rows)
            paths, rows = [], []
    if paths:
        yield paths, np.concatenate(rows)


_WRITERS: dict[str, Callable[[Path, Table], None]] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
