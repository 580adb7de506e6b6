"""What the pickle of a torch.save may name: tensors, storages and types.

What else it names stays Opaque, and so does a tensor of it: training scripts save settings,
dates and paths beside the weights, which nobody needs here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ondevice.errors import printable
from ondevice.weights.torch.pickles import Globals, Opaque, PickleError, add_items

MAX_NDIM = 16


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: numpy's code for reading it, and what MLX calls it."""

    numpy: str
    mlx: mx.Dtype

    @property
    def size(self) -> int:
        """Bytes of an element in the file."""
        return np.dtype(self.numpy).itemsize


_BYTE = DType("<u1", mx.uint8)
_DTYPES = {  # torch's name of the storage class, of the type
    ("DoubleStorage", "float64"): DType("<f8", mx.float32),
    ("FloatStorage", "float32"): DType("<f4", mx.float32),
    ("HalfStorage", "float16"): DType("<f2", mx.float16),
    ("BFloat16Storage", "bfloat16"): DType("<u2", mx.bfloat16),
    ("LongStorage", "int64"): DType("<i8", mx.int64),
    ("IntStorage", "int32"): DType("<i4", mx.int32),
    ("ShortStorage", "int16"): DType("<i2", mx.int16),
    ("CharStorage", "int8"): DType("<i1", mx.int8),
    ("ByteStorage", "uint8"): _BYTE,
    ("BoolStorage", "bool"): DType("<u1", mx.bool_),
    ("UInt16Storage", "uint16"): DType("<u2", mx.uint16),
    ("UInt32Storage", "uint32"): DType("<u4", mx.uint32),
    ("UInt64Storage", "uint64"): DType("<u8", mx.uint64),
}


@dataclass(frozen=True, slots=True)
class Storage:
    """``numel`` elements, kept under ``key``; a view of them starts at element ``offset``."""

    key: str
    dtype: DType
    numel: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor's elements are. ``make`` of its file gives the array."""

    storage: Storage
    dtype: DType
    offset: int  # in elements, as are the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Of the array that ``make`` gives."""
        return math.prod(self.shape) * self.dtype.mlx.size


def load_storage(pid: Any, storages: dict[str, Storage]) -> Storage | Opaque:
    """The storage of a persistent id: ("storage", type, key, device, numel[, view]).

    ``storages`` has those met so far. Raises PickleError.
    """
    kind, dtype, *rest = pid
    if kind in ("storage", "module") and isinstance(dtype, Opaque):
        return dtype
    key, _, numel, *view = rest
    if kind != "storage" or not isinstance(dtype, DType) or not _naturals((numel,)):
        raise PickleError("it refers to something other than a storage")
    if not isinstance(key, str) or not re.fullmatch(r"\w+", key):
        raise PickleError(f"{printable(repr(key))} is no name of a storage")
    whole = Storage(key, dtype, numel)
    if storages.setdefault(key, whole) != whole:
        raise PickleError(f"storage {key} has two sizes or types")
    if not view or view[0] is None:
        return whole
    _, offset, length = view[0]
    if not _naturals((offset, length)) or offset + length > numel:
        raise PickleError(f"a view of storage {key} leaves it")
    return Storage(key, dtype, length, offset)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    if isinstance(storage, Opaque):
        return storage
    return _typed_tensor(storage, offset, shape, strides, None, None, storage.dtype)


def _typed_tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *_: Any,
) -> Any:
    if opaque := [x for x in (storage, dtype) if isinstance(x, Opaque)]:
        return opaque[0]
    if not isinstance(storage, Storage) or not isinstance(dtype, DType):
        raise PickleError("a tensor has no storage of a known type")
    if storage.offset and dtype != storage.dtype:
        raise PickleError("a tensor has another type than the view it lies in")
    if not (_naturals((offset,)) and _naturals(shape, 2**31) and _naturals(strides)):
        raise PickleError("a tensor has an impossible shape, stride or offset")
    if len(shape) != len(strides) or len(shape) > MAX_NDIM:
        raise PickleError("a tensor has an impossible number of axes")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    length = storage.numel * storage.dtype.size // dtype.size
    if (last >= length and math.prod(shape)) or offset > length:
        raise PickleError(f"a tensor of shape {shape} leaves its storage of {length} elements")
    return Tensor(storage, dtype, offset, shape, strides)


def _naturals(values: Any, limit: int = 2**48) -> bool:
    return isinstance(values, tuple) and all(type(n) is int and 0 <= n < limit for n in values)


def _ordered_dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    return add_items({}, pairs)


def _from_type(function: Any, _type: Any, args: Any, _state: Any) -> Any:
    """A tensor with attributes of its own."""
    if isinstance(function, Opaque):
        return function
    if function not in (_tensor, _typed_tensor, _parameter):
        raise PickleError("a tensor is made in an unknown way")
    return function(*args)


def _parameter(tensor: Any, *_: Any) -> Any:
    if not isinstance(tensor, Tensor | Opaque):
        raise PickleError("a parameter is no tensor")
    return tensor


KNOWN: Globals = {
    **{f"torch.{storage}": dtype for (storage, _), dtype in _DTYPES.items()},
    **{f"torch.{name}": dtype for (_, name), dtype in _DTYPES.items()},
    "torch.storage.UntypedStorage": _BYTE,
    "torch.UntypedStorage": _BYTE,
    "torch.Size": tuple,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda *_: {},
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
}
