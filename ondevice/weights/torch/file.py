"""The two file formats of ``torch.save``, read without torch and without trust.

Since torch 1.6 a file is a zip archive, uncompressed: ``NAME/data.pkl`` is a pickle in which
each tensor refers to one of the storages ``NAME/data/0``, ``NAME/data/1``, …. Before, it was
five pickles in a row (magic number, version, system, value, order of the storages) followed by
the storages. Storages are mapped, not read: only the tensors asked for cost memory.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ondevice.errors import WeightsError, printable
from ondevice.weights.torch.objects import KNOWN, Storage, Tensor, load_storage
from ondevice.weights.torch.pickles import read_pickle

MAX_PICKLE = 64 * 2**20  # bytes
MAX_DIRECTORY = 16 * 2**20  # bytes: some 200,000 storages
SLACK = 16 * 2**20  # bytes that arrays may take beyond twice their file's size

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older form


@dataclass(frozen=True)
class TorchFile:
    """What a file of torch.save holds, its tensors still to be made."""

    path: Path
    value: Any
    data: mmap.mmap
    extents: dict[str, tuple[int, int]]  # storage key -> first byte, count of bytes

    def make(self, tensors: dict[str, Tensor]) -> dict[str, mx.array]:
        """The arrays of ``tensors``; those that are one in the file are one array.

        Raises WeightsError if they take more memory than a file of this size can need.
        """
        made = {id(t): t for t in tensors.values()}
        total = sum(t.nbytes for t in made.values())
        if total > 2 * len(self.data) + SLACK:
            raise WeightsError(
                f"{self.path} claims {total} bytes of tensors in a file of {len(self.data)}: "
                "views that repeat its data are not copied out"
            )
        arrays = {key: self._array(t) for key, t in made.items()}
        return {name: arrays[id(t)] for name, t in tensors.items()}

    def _array(self, tensor: Tensor) -> mx.array:
        dtype = tensor.dtype
        start, size = self.extents[tensor.storage.key]
        flat = np.frombuffer(self.data, dtype.numpy, size // dtype.size, start)
        view = np.lib.stride_tricks.as_strided(
            flat[tensor.storage.offset + tensor.offset :],
            tensor.shape,
            [n * dtype.size for n in tensor.strides],
            writeable=False,
        )
        with np.errstate(over="ignore"):  # a float64 out of range is infinite: refused later
            native = np.array(view, _NATIVE.get(dtype.numpy), order="C")
        array = mx.array(native)
        return array.view(dtype.mlx) if dtype.mlx == mx.bfloat16 else array.astype(dtype.mlx)


_NATIVE = {"<f8": np.float32}


def read_torch(path: str | Path) -> TorchFile:
    """Open a file of torch.save. Raises WeightsError."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is a folder or a device")
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise ValueError("it is empty")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if data[:4] == b"PK\3\4":
            return _read_zip(path, data)
        if data[:1] == b"\x80" and read_pickle(data, {}) == _MAGIC:
            return _read_legacy(path, data)
        raise ValueError(f"it begins with {bytes(data[:8])!r}, not as torch.save writes")
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = error.strerror if isinstance(error, OSError) else printable(str(error), 1000)
        raise WeightsError(f"{path} is not a readable PyTorch checkpoint: {reason}") from error


# --- the zip form


def _read_zip(path: Path, data: mmap.mmap) -> TorchFile:
    entries = _entries(path, data)
    pickles = [name for name in entries if name.endswith("/data.pkl") or name == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError(f"the archive has {len(pickles)} data.pkl, expected 1")
    root = pickles[0].removesuffix("data.pkl")
    start, size = entries[pickles[0]]
    if size > MAX_PICKLE:
        raise ValueError(f"data.pkl has {size} bytes, more than {MAX_PICKLE}")
    start_order, size_order = entries.get(f"{root}byteorder", (0, 0))
    order = data[start_order : start_order + min(size_order, 16)]
    if order not in (b"", b"little"):
        raise ValueError(f"its byte order is {order!r}, expected little")
    prefix = f"{root}data/"
    extents = {k.removeprefix(prefix): e for k, e in entries.items() if k.startswith(prefix)}
    storages: dict[str, Storage] = {}
    value = read_pickle(
        io.BytesIO(data[start : start + size]), KNOWN, lambda pid: load_storage(pid, storages)
    )
    _check_storages(storages, extents)
    return TorchFile(path, value, data, extents)


def _entries(path: Path, data: mmap.mmap) -> dict[str, tuple[int, int]]:
    """First byte and size of each file in the archive, all of them plain and in it."""
    _check_directory(data)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    if any("/code/" in info.filename for info in infos):
        raise ValueError("it is a TorchScript program, not weights")
    if twice := [name for name, n in Counter(i.filename for i in infos).items() if n > 1]:
        raise ValueError(f"{printable(twice[0])} is in the archive twice")
    if packed := [i.filename for i in infos if i.compress_type or i.flag_bits & 1]:
        raise ValueError(
            f"{printable(packed[0])} is compressed or encrypted; torch does neither"
        )
    return {i.filename: _extent(i, data) for i in infos}


def _check_directory(data: mmap.mmap) -> None:
    """Whether the archive's directory, which Python reads whole, is where it should be."""
    end = data[-22:]
    if end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise ValueError("the directory at its end is missing: the file is truncated")
    size, _ = struct.unpack("<II", end[12:20])
    if size == 0xFFFFFFFF and len(data) > 98:  # the 64-bit form precedes
        (size,) = struct.unpack("<Q", data[-58:-50])
    if size > min(MAX_DIRECTORY, len(data)):
        raise ValueError(f"the archive's directory claims {size} bytes")


def _extent(info: zipfile.ZipInfo, data: mmap.mmap) -> tuple[int, int]:
    header = data[info.header_offset : info.header_offset + 30]
    if header[:4] != b"PK\3\4" or len(header) < 30:
        raise ValueError(f"{printable(info.filename)} is not where the archive says")
    start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    if start + info.file_size > len(data) or info.file_size != info.compress_size:
        raise ValueError(f"{printable(info.filename)} lies about its size")
    return start, info.file_size


def _check_storages(storages: dict[str, Storage], extents: dict[str, tuple[int, int]]) -> None:
    for key, storage in storages.items():
        if key not in extents:
            raise ValueError(f"storage {key} is not in the archive")
        if extents[key][1] != storage.numel * storage.dtype.size:
            raise ValueError(
                f"storage {key} has {extents[key][1]} bytes, but {storage.numel} elements "
                f"of {storage.dtype.size} are said to be in it"
            )


# --- the form before torch 1.6


def _read_legacy(path: Path, data: mmap.mmap) -> TorchFile:
    storages: dict[str, Storage] = {}
    version, system = read_pickle(data, {}), read_pickle(data, {})
    if version != 1001 or not isinstance(system, dict):
        raise ValueError("its version is not 1001")
    if system.get("little_endian") is not True:
        raise ValueError("its byte order is big, expected little")
    value = read_pickle(data, KNOWN, lambda pid: load_storage(pid, storages))
    keys = read_pickle(data, {})
    if not isinstance(keys, list) or set(map(type, keys)) - {str}:
        raise ValueError("its list of storages is missing")
    if sorted(keys) != sorted(storages):
        raise ValueError("its list of storages is not that of its tensors")
    extents, position = {}, data.tell()
    for key in keys:  # each is its number of elements and these
        prefix = data[position : position + 8]
        count = struct.unpack("<q", prefix)[0] if len(prefix) == 8 else -1
        nbytes = storages[key].numel * storages[key].dtype.size
        if count != storages[key].numel or position + 8 + nbytes > len(data):
            raise ValueError(f"storage {printable(key)} is truncated or lies about its size")
        extents[key] = (position + 8, nbytes)
        position += 8 + nbytes
    return TorchFile(path, value, data, extents)
