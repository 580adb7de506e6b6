"""A program as it is written in the package, without coremltools' checks.

What ``inspect`` and the lint look at: it works for operations that nobody here can run, and
reads no weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ondevice.errors import PackageError

from ..program.stored import TensorType, Weight, Wiring
from .reader import Blob, SavedPackage, blobs_of, quiet

# Operations that compute nothing: they move values from one place to another.
DATA_MOVING = frozenset(
    "reshape transpose split slice_by_index slice_by_size concat squeeze expand_dims pad "
    "gather gather_along_axis tile stack".split()
)


@dataclass(frozen=True)
class StoredOp:
    """One operation: its type, the names it reads by parameter, and those it writes."""

    type: str
    inputs: Mapping[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    own: Mapping[str, TensorType]  # constants that are part of the operation itself
    blobs: tuple[Blob, ...]
    inline: int = 0  # bytes of its own constants that lie in the program

    @property
    def name(self) -> str:
        """That of its first output."""
        return self.outputs[0] if self.outputs else self.type

    @property
    def is_constant(self) -> bool:
        """Whether it is a constant, stored plainly or compressed."""
        return self.type == "const" or self.type.startswith("constexpr_")

    def reads(self) -> Iterator[str]:
        """The names of all values that it reads."""
        for names in self.inputs.values():
            yield from names


@dataclass(frozen=True)
class StoredFunction(Wiring[StoredOp]):
    """A function's operations in order, the type of every value, and the small constants."""

    everything: tuple[StoredOp, ...]
    types: Mapping[str, TensorType]
    values: Mapping[str, Any]

    @cached_property
    def operations(self) -> list[StoredOp]:
        """What is computed: constants aside."""
        return [op for op in self.everything if not op.is_constant]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of what is computed as numbers."""
        computed = (op for op in self.operations if op.type != "classify")
        names = (name for op in computed for name in op.outputs if name in self.types)
        return {name: self.types[name].shape for name in names}

    def value(self, op: StoredOp, parameter: str, default: Any = None) -> Any:
        """A small constant parameter's value."""
        names = op.inputs.get(parameter, ())
        return self.values.get(names[0], default) if names else default

    def type_of(self, op: StoredOp, parameter: str) -> TensorType | None:
        """The type of an operand, if there is one."""
        names = op.inputs.get(parameter, ())
        return self.types.get(names[0]) if names else None

    def is_constant(self, name: str) -> bool:
        """Whether a value is a constant."""
        return name in self.producers and self.producers[name].is_constant

    @cached_property
    def weights(self) -> dict[str, Weight]:
        """Constants that are tensors of numbers, by the name under which they are used."""
        weights = {}
        for op in self.everything:
            if not op.is_constant:
                continue
            is_part = any(r.is_constant for n in op.outputs for r in self.readers.get(n, []))
            shape = self.types[op.outputs[-1]].shape
            blobs = {blob for each in self._made_of(op) for blob in each.blobs}
            if not is_part and (blobs or sum(n > 1 for n in shape) > 1):
                size = sum(b.bytes for b in blobs) + sum(o.inline for o in self._made_of(op))
                weights[op.outputs[-1]] = Weight(op.outputs[-1], shape, self.format(op), size)
        return weights

    def _made_of(self, op: StoredOp) -> Iterator[StoredOp]:
        """A constant and those that it unpacks."""
        yield op
        for name in op.reads():
            yield from self._made_of(self.producers[name])

    def parts(self, op: StoredOp) -> dict[str, TensorType]:
        """The types of a compressed constant's ingredients, by parameter."""
        named = {p: self.types[names[0]] for p, names in op.inputs.items() if names}
        return {**op.own, **named}

    def format(self, op: StoredOp) -> str:
        """How a constant is stored: "fp16", "4-bit palette", "sparse int8 per channel", …"""
        described = _FORMATS.get(op.type.removeprefix("constexpr_"), _plain)(self.parts(op))
        inner = [
            self.format(self.producers[name])
            for parameter, names in op.inputs.items()
            for name in names
            if "mask" not in parameter and self.producers[name].type.startswith("constexpr_")
        ]
        return " ".join([described, *(f"({text})" for text in inner)])


Parts = Mapping[str, TensorType]


def _plain(parts: Parts) -> str:
    return next((t.dtype for t in parts.values()), "unknown")


def _palette(parts: Parts) -> str:
    lut = parts["lut"]
    entries = lut.size if len(lut.shape) == 1 else lut.shape[-2]
    tables = 1 if len(lut.shape) == 1 else math.prod(lut.shape[:-2])
    vector = lut.shape[-1] if len(lut.shape) > 1 else 1
    extras = [f"{tables} tables"] * (tables > 1) + [f"vectors of {vector}"] * (vector > 1)
    return f"{round(math.log2(entries))}-bit palette" + "".join(f", {e}" for e in extras)


def _scaled(parts: Parts) -> str:
    data = parts.get("data", parts.get("quantized_data"))
    scale = parts["scale"]
    if data is None:  # the data are sparse
        return f"{parts['nonzero_data'].dtype} with scales"
    if scale.size == 1:
        return f"{data.dtype} per tensor"
    if len(scale.shape) != len(data.shape):
        return f"{data.dtype} per channel"
    blocks = {n // s for n, s in zip(data.shape, scale.shape, strict=True) if s > 1}
    return f"{data.dtype} per " + ("channel" if blocks == {1} else f"block of {max(blocks)}")


_FORMATS = {
    "lut_to_dense": _palette,
    "lut_to_sparse": _palette,
    "affine_dequantize": _scaled,
    "blockwise_shift_scale": _scaled,
    "sparse_blockwise_shift_scale": _scaled,
    "sparse_to_dense": lambda parts: "sparse " + _plain({"": parts["nonzero_data"]}),
}


def stored_function(package: SavedPackage, name: str) -> StoredFunction:
    """Raises PackageError."""
    stored = package.network.mlProgram.functions[name]
    if stored.opset not in stored.block_specializations:
        raise PackageError(f"{package.path}: function {name!r} has no block {stored.opset!r}")
    block = stored.block_specializations[stored.opset]
    types = {i.name: _tensor_type(i.type) for i in stored.inputs}
    values: dict[str, Any] = {}
    operations = []
    for op in block.operations:
        types.update((o.name, _tensor_type(o.type)) for o in op.outputs)
        if op.type == "const" and op.outputs and (value := _immediate(op)) is not None:
            values[op.outputs[0].name] = value
        operations.append(_operation(op, package))
    return StoredFunction(tuple(operations), types, values)


def _operation(op: Any, package: SavedPackage) -> StoredOp:
    inputs = {
        parameter: tuple(
            b.name for b in argument.arguments if b.WhichOneof("binding") == "name"
        )
        for parameter, argument in op.inputs.items()
    }
    literals = {**op.attributes, **_literal_inputs(op)}
    own = {name: _tensor_type(v.type) for name, v in literals.items() if name != "name"}
    written = (own[n] for n in own if literals[n].WhichOneof("value") == "immediateValue")
    inline = sum(kind.bytes for kind in written)
    outputs = tuple(o.name for o in op.outputs)
    return StoredOp(op.type, inputs, outputs, own, tuple(blobs_of(op, package)), inline)


def _literal_inputs(op: Any) -> dict[str, Any]:
    return {
        parameter: binding.value
        for parameter, argument in op.inputs.items()
        for binding in argument.arguments
        if binding.WhichOneof("binding") == "value"
    }


def _tensor_type(declared: Any) -> TensorType:
    with quiet():
        from coremltools import proto

    if declared.WhichOneof("type") != "tensorType":
        return TensorType(declared.WhichOneof("type") or "unknown", ())
    tensor = declared.tensorType
    known = {number: name for name, number in proto.MIL_pb2.DataType.items()}
    dtype = known.get(tensor.dataType, f"unknown {tensor.dataType}")
    dtype = dtype.lower().replace("float", "fp")
    shape = tuple(
        int(d.constant.size) if d.WhichOneof("dimension") == "constant" else -1
        for d in tensor.dimensions
    )
    return TensorType(dtype, shape)


def _immediate(op: Any) -> Any:
    """The value of a constant that is written in the program itself."""
    value = op.attributes["val"]
    if value.WhichOneof("value") != "immediateValue":
        return None
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    if kind == "bytes":
        dtype = {"fp16": np.float16, "int8": np.int8}.get(_tensor_type(value.type).dtype)
        return None if dtype is None else np.frombuffer(tensor.bytes.values, dtype)
    if kind is None:
        return None
    values = list(getattr(tensor, kind).values)
    return values[0] if kind == "strings" and values else np.array(values)
