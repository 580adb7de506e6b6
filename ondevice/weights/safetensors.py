"""Read .safetensors files that nobody vouches for, and write them.

Format: https://huggingface.co/docs/safetensors. The header is checked against the file's
size before any array is made, so a lying or truncated file costs one error, not memory.
Arrays are lazy: MLX reads each from the disk when it is first computed with.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import WeightsError, printable

INDEX = ".safetensors.index.json"  # how the name of a sharded checkpoint's table ends
MAX_HEADER = 4 * 2**20  # bytes: some 40,000 arrays; parsed JSON takes 30 times the memory
MAX_NDIM = 16

_DTYPES = {
    "F32": mx.float32,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "I64": mx.int64,
    "I32": mx.int32,
    "I16": mx.int16,
    "I8": mx.int8,
    "U64": mx.uint64,
    "U32": mx.uint32,
    "U16": mx.uint16,
    "U8": mx.uint8,
    "BOOL": mx.bool_,
}
TORCH = {".pth", ".pt", ".bin", ".tar", ".ckpt"}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read_safetensors(path: str | Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    """The arrays of a file and its metadata. Raises WeightsError.

    ``path`` may also be the ``*.safetensors.index.json`` of a checkpoint in several files.
    """
    path = Path(path)
    if path.name.endswith(INDEX):
        return _read_shards(path), {}
    if path.suffix in TORCH:
        raise WeightsError(f"{path} is a PyTorch checkpoint; `ondevice import` converts it")
    with _explained(path, "safetensors file"):
        entries, metadata, _ = _read_header(path)
        arrays = mx.load(str(path), format="safetensors") if entries else {}
    assert isinstance(arrays, dict)
    return arrays, metadata


def map_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The arrays of a file as NumPy's, mapped rather than read, and its metadata.

    Raises WeightsError, also for bfloat16, which NumPy does not have.
    """
    with _explained(path, "safetensors file"):
        entries, metadata, start = _read_header(path)
        arrays = {
            name: np.memmap(
                path,
                _numpy_dtype(entry["dtype"]),
                "r",
                start + entry["data_offsets"][0],
                tuple(entry["shape"]),
            )
            for name, entry in entries.items()
        }
    return arrays, metadata


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name == "BF16":
        raise ValueError("NumPy has no bfloat16")
    return np.dtype(str(_DTYPES[name]).removeprefix("mlx.core.").rstrip("_")).newbyteorder("<")


def read_index(path: Path) -> dict[str, str]:
    """The file that holds each array of a checkpoint in several. Raises WeightsError."""
    with _explained(path, "table of safetensors files"):
        if path.stat().st_size > MAX_HEADER:
            raise ValueError(f"it is larger than {MAX_HEADER} bytes")
        table = _parse(path.read_bytes()).get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
            raise ValueError("it has no weight_map from names to files")
        files = sorted(set(table.values()))
        if strange := [f for f in files if not re.fullmatch(r"[\w.-]+\.safetensors", f)]:
            raise ValueError(f"it names {printable(strange[0])}, no safetensors file beside it")
    return table


def _read_shards(path: Path) -> dict[str, mx.array]:
    table = read_index(path)
    shards = {f: read_safetensors(path.with_name(f))[0] for f in sorted(set(table.values()))}
    if lost := sorted(k for k, file in table.items() if k not in shards[file]):
        names = ", ".join(map(printable, lost[:12])) + (", …" if len(lost) > 12 else "")
        raise WeightsError(f"{path} lists {len(lost)} arrays that are not there: {names}")
    return {k: shards[file][k] for k, file in table.items()}


@contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes one WeightsError about ``path``."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is a folder or a device")
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise WeightsError(f"{path} is not a readable {kind}: {reason}") from error


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """What a file says of its arrays, its metadata, and the byte at which the first begins."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{size} bytes are too few")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER, size - 8):
            raise ValueError(f"a header of {length} bytes does not fit a file of {size}")
        entries = _parse(file.read(length))
    metadata = entries.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata  # MLX writes a null for none
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata is no table of texts")
    start = 8 + length
    _check_extents(entries, size - start)
    return entries, metadata, start


def _parse(text: bytes) -> dict[str, Any]:
    header = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("the header is no table")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"{printable(name)} appears twice")
        table[name] = value
    return table


def _check_extents(header: dict[str, Any], size: int) -> None:
    """Whether the arrays follow each other without a gap and fill the file."""
    position = 0
    for begin, end, name in sorted(_extent(printable(k), v, size) for k, v in header.items()):
        if begin != position:
            raise ValueError(f"{name} begins at byte {begin}, expected {position}")
        position = end
    if position != size:
        raise ValueError(f"{size - position} bytes at its end belong to no array")


def _extent(name: str, entry: Any, size: int) -> tuple[int, int, str]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{name} has type {dtype!r:.40}, expected one of {', '.join(_DTYPES)}")
    if not _naturals(shape, 2**31) or len(shape) > MAX_NDIM:
        raise ValueError(f"{name} has an impossible shape")
    if not _naturals(offsets, 2**63) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name} has impossible data_offsets")
    begin, end = offsets
    if end > size:
        raise ValueError(f"{name} ends at byte {end} of {size}: the file is truncated")
    if math.prod(shape) * _DTYPES[dtype].size != end - begin:
        raise ValueError(f"{name} of shape {shape} does not fill its {end - begin} bytes")
    return begin, end, name


def _naturals(values: Any, limit: int) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n < limit for n in values)


def write_safetensors(
    path: Path, arrays: Mapping[str, mx.array], metadata: Mapping[str, str]
) -> None:
    """Write ``arrays``: the same bytes for the same values. Raises OSError."""
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # all stay aligned
    described = {name: (arrays[name].dtype, arrays[name].shape) for name in order}
    with path.open("wb") as file:
        file.write(header(described, dict(sorted(metadata.items())))[0])
        for name in order:
            file.write(np.asarray(arrays[name].flatten().view(mx.uint8)).data)


def header(
    arrays: Mapping[str, tuple[mx.Dtype, Sequence[int]]],
    metadata: Mapping[str, str],
    size: int = 0,
) -> tuple[bytes, list[int]]:
    """What a file begins with, and at which byte each of its arrays then begins.

    ``arrays`` are types and shapes in the order of the file; larger items go first, so that
    all stay aligned. The header is filled with spaces up to ``size`` bytes, if it is shorter.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin, begins = 0, []
    for name, (dtype, shape) in arrays.items():
        end = begin + math.prod(shape) * dtype.size
        begins.append(begin)
        entries[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    text = text.ljust(size - 8)
    return struct.pack("<Q", len(text)) + text, [8 + len(text) + begin for begin in begins]
