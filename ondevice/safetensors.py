"""Read .safetensors files that nobody vouches for.

Format: https://huggingface.co/docs/safetensors. The header is checked against the file's
size before any array is made, so a lying or truncated file costs one error, not memory.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from .errors import WeightsError

MAX_HEADER = 100_000_000  # bytes; the reference implementation's limit

_DTYPES: dict[str, tuple[str, mx.Dtype]] = {  # how numpy reads it, what MLX calls it
    "F64": ("<f8", mx.float32),
    "F32": ("<f4", mx.float32),
    "F16": ("<f2", mx.float16),
    "BF16": ("<u2", mx.bfloat16),
    "I64": ("<i8", mx.int64),
    "I32": ("<i4", mx.int32),
    "I16": ("<i2", mx.int16),
    "I8": ("<i1", mx.int8),
    "U64": ("<u8", mx.uint64),
    "U32": ("<u4", mx.uint32),
    "U16": ("<u2", mx.uint16),
    "U8": ("<u1", mx.uint8),
    "BOOL": ("|b1", mx.bool_),
}


def read_safetensors(path: str | Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    """The arrays of a file and its metadata. Raises WeightsError."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header, start = _header(file.read(8), file, size)
        metadata = header.pop("__metadata__", {})
        data = np.memmap(path, np.uint8, "r", offset=start) if size > start else b""
        extents = sorted(_extent(k, v, size - start) for k, v in header.items())
        for (_, end, first), (begin, _, second) in zip(extents, extents[1:], strict=False):
            if begin < end:
                raise ValueError(f"{first} and {second} overlap")
        arrays = {k: _array(v, data) for k, v in header.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise WeightsError(f"{path} is not a readable safetensors file: {reason}") from error
    return arrays, metadata if isinstance(metadata, dict) else {}


def _header(prefix: bytes, file: Any, size: int) -> tuple[dict[str, Any], int]:
    if len(prefix) < 8:
        raise ValueError(f"{size} bytes are too few")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(MAX_HEADER, size - 8):
        raise ValueError(f"a header of {length} bytes does not fit a file of {size}")
    header = json.loads(file.read(length), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("the header is no table")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name appears twice in the header")
    return table


def _extent(name: str, entry: dict[str, Any], room: int) -> tuple[int, int, str]:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _DTYPES:
        raise ValueError(f"{name} has unknown type {dtype!r}")
    if not all(isinstance(n, int) and n >= 0 for n in [*shape, begin, end]):
        raise ValueError(f"{name} has an impossible shape or place")
    if not begin <= end <= room:
        raise ValueError(f"{name} ends at byte {end} of {room}: the file is truncated")
    if math.prod(shape) * np.dtype(_DTYPES[dtype][0]).itemsize != end - begin:
        raise ValueError(f"{name} of shape {shape} does not fill its {end - begin} bytes")
    return begin, end, name


def _array(entry: dict[str, Any], data: Any) -> mx.array:
    numpy_type, mlx_type = _DTYPES[entry["dtype"]]
    begin, end = entry["data_offsets"]
    flat = np.frombuffer(data[begin:end], numpy_type)
    array = mx.array(flat.astype(flat.dtype.newbyteorder("=")))
    array = array.view(mlx_type) if entry["dtype"] == "BF16" else array.astype(mlx_type)
    return array.reshape(entry["shape"])
