"""Read files of embeddings: rows are mapped or read in chunks, never all in memory."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import ConfigError, OnDeviceError, WeightsError
from ...weights.safetensors import map_safetensors
from .store import KEY, check_pyarrow

CHUNK = 16 * 2**20  # bytes of rows that are looked at together


class _File(Protocol):
    info: dict[str, Any]
    shape: tuple[int, int]

    def chunks(self, size: int) -> Iterator[Any]: ...
    def path(self, row: int) -> str: ...


@dataclass
class Index:
    """Embeddings of images, and what made them."""

    name: str
    model: str
    weights: str
    normalized: bool
    file: _File

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and values in each."""
        return self.file.shape

    def chunks(self) -> Iterator[Any]:
        """All rows in order, some thousands (N, dim) at a time."""
        return self.file.chunks(max(1, CHUNK // (4 * self.shape[1])))

    def path(self, row: int) -> str:
        """The path of the image behind a row."""
        return self.file.path(row)


def open_index(path: str | Path) -> Index:
    """The file that ``encode`` wrote. Raises ConfigError if it is damaged or something else."""
    path = Path(path)
    if path.suffix not in _READERS:
        raise ConfigError(f"{path} is no index: it has to end with {', '.join(_READERS)}")
    if path.suffix == ".parquet":
        check_pyarrow()
    try:
        file = _READERS[path.suffix](path)
        info = file.info
        index = Index(str(path), info["model"], info["weights"], bool(info["normalized"]), file)
        if 0 in index.shape or index.shape[1] != info["dim"]:
            raise ValueError(f"rows of shape {index.shape}, said to be of {info['dim']}")
    except (
        OnDeviceError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise ConfigError(f"{path} is no readable index: {_reason(error)}") from error
    return index


def _reason(error: BaseException) -> str:
    if isinstance(error, WeightsError) and error.__cause__:
        return _reason(error.__cause__)
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return (isinstance(error, OSError) and error.strerror) or str(error)


class _Safetensors:
    def __init__(self, path: Path) -> None:
        arrays, metadata = map_safetensors(path)
        self.info = json.loads(metadata[KEY])
        self._rows, self._ends = arrays["embeddings"], arrays["path_ends"]
        self._text = arrays["paths"]
        if tuple(a.dtype for a in (self._rows, self._ends, self._text)) != ("<f4", "<i8", "u1"):
            raise ValueError("its arrays are of other types")
        self.shape = self._rows.shape
        if self._ends.shape != self.shape[:1] or self._ends[-1] != len(self._text):
            raise ValueError("its paths do not belong to its rows")

    def chunks(self, size: int) -> Iterator[Any]:
        return _slices(self._rows, size)

    def path(self, row: int) -> str:
        start = self._ends[row - 1] if row else 0
        return os.fsdecode(self._text[start : self._ends[row] - 1].tobytes())


class _Npz:
    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            found = {
                name: _mapped_member(path, archive, f"{name}.npy")
                for name in ("info", "embeddings", "paths")
            }
        self.info = json.loads(str(found["info"]))
        self._rows, self._paths = found["embeddings"], found["paths"]
        self.shape = self._rows.shape
        if self._paths.shape != self.shape[:1]:
            raise ValueError("its paths do not belong to its rows")

    def chunks(self, size: int) -> Iterator[Any]:
        return _slices(self._rows, size)

    def path(self, row: int) -> str:
        return str(self._paths[row])


def _mapped_member(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, so it cannot be mapped")
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(name_length + extra_length, os.SEEK_CUR)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return np.memmap(path, dtype, "r", file.tell(), shape)


class _Parquet:
    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, memory_map=True)
        schema = self._file.schema_arrow
        self.info = json.loads((schema.metadata or {})[KEY.encode()])
        dim = schema.field("embedding").type.list_size
        self.shape = (self._file.metadata.num_rows, dim)

    def chunks(self, size: int) -> Iterator[Any]:
        for batch in self._file.iter_batches(size, columns=["embedding"]):
            yield batch.column(0).flatten().to_numpy().reshape(-1, self.shape[1])

    def path(self, row: int) -> str:
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if row < rows:
                names = self._file.read_row_group(group, columns=["path"]).column(0)
                return str(names[row])
            row -= rows
        raise IndexError(row)


def _slices(rows: Any, size: int) -> Iterator[Any]:
    return (rows[i : i + size] for i in range(0, len(rows), size))


_READERS: dict[str, type[_Safetensors | _Npz | _Parquet]] = {
    ".safetensors": _Safetensors,
    ".npz": _Npz,
    ".parquet": _Parquet,
}
