"""Files as torch.save writes them, made by hand: instruction by instruction, or wrong."""

import io
import struct
import zipfile
from collections.abc import Mapping
from functools import cache

import numpy as np
from mlx.utils import tree_flatten

from ondevice import create_model

NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"
FLOATS = np.arange(6, dtype="<f4").tobytes()  # what the storage of most cases holds
MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def group(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def numbers(*values: int) -> bytes:
    return group(*map(number, values))


def table(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(k) + v for k, v in entries.items()) + b"u"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *args: bytes) -> bytes:
    return function + group(*args) + b"R"


def storage(
    key: bytes = text("0"), kind: str = "FloatStorage", numel: int = 6, *view: bytes
) -> bytes:
    parts = (text("storage"), name("torch", kind), key, text("cpu"), number(numel), *view)
    return group(*parts) + b"Q"


def tensor(
    store: bytes = storage(),
    offset: bytes = number(0),
    shape: bytes = numbers(2, 3),
    strides: bytes = numbers(3, 1),
) -> bytes:
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    hooks = call(name("collections", "OrderedDict"))
    return call(rebuild, store, offset, shape, strides, FALSE, hooks)


def pickled(value: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + value + b"."


def archive(value: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """The zip form of a checkpoint with this value."""
    kept = {"0": FLOATS} if storages is None else storages
    entries = [("data.pkl", pickled(value)), ("byteorder", b"little"), ("version", b"3\n")]
    return zipped([*entries, *((f"data/{k}", v) for k, v in kept.items())])


def zipped(
    entries: list[tuple[str, bytes]],
    compression: int = zipfile.ZIP_STORED,
    comment: bytes = b"",
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for path, content in entries:
            out.writestr(f"archive/{path}", content)
        out.comment = comment
    return file.getvalue()


def legacy(
    value: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    version: int = 1001,
    little: bytes = TRUE,
    counts: Mapping[str, int] | None = None,
    keys: bytes | None = None,
) -> bytes:
    """The form before torch 1.6, of float storages."""
    kept = {"0": FLOATS} if storages is None else storages
    listed = b"](" + b"".join(map(text, kept)) + b"e" if keys is None else keys
    system = table({"protocol_version": number(1001), "little_endian": little})
    parts = [MAGIC, number(version), system, value, listed]
    stored = [
        struct.pack("<q", (counts or {}).get(k, len(v) // 4)) + v for k, v in kept.items()
    ]
    return b"".join([*map(pickled, parts), *stored])


def weights(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A checkpoint with these float32 or int64 arrays under "model"."""
    kinds = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}
    entries = {
        key: tensor(
            storage(text(str(i)), kinds[str(a.dtype)], a.size),
            number(0),
            numbers(*a.shape),
            numbers(*(n // a.itemsize for n in a.strides)),
        )
        for i, (key, a) in enumerate(arrays.items())
    }
    stored = {str(i): a.tobytes() for i, a in enumerate(arrays.values())}
    return archive(table({"model": table(entries)}), stored)


def model(**entries: bytes) -> bytes:
    """A checkpoint with these entries under "model"."""
    return archive(table({"model": table(entries)}))


@cache
def nano() -> dict[str, np.ndarray]:
    """Weights that fit a shvit_nano, in torch's layout."""
    arrays = dict(tree_flatten(create_model("shvit_nano").parameters()))
    axes = {k: (0, 3, 1, 2) if a.ndim == 4 else range(a.ndim) for k, a in arrays.items()}
    return {k: np.array(a).transpose(axes[k]).copy() for k, a in arrays.items()}
