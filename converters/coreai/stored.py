"""A function as it is written in a package, whether or not it can be run here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ondevice.errors import PackageError

from ..compress.forms import Affine, Palette, spread
from ..graph.graph import Array, free_name
from ..program.stored import TensorType, Weight, Wiring
from .runtime import RawFunction, RawOp, constant_of

_SMALL = 256  # elements of a constant that can be looked up while the program is read
_PREFIX = {"si": "int", "ui": "uint", "f": "fp", "bf": "bf"}


def parsed(text: str) -> TensorType:
    """A type as a program writes it: ``tensor<1x3xf16>``, ``!coreai.image<<k24RGB> x …>``."""
    if found := re.search(r"image<<k24(\w+)> x (\d+) : i64 x (\d+)", text):
        return TensorType(found[1], (int(found[2]), int(found[3])))
    found = re.search(r"<((?:(?:\d+|\?)x)*)(\w+)", text)
    if found is None:
        return TensorType(text, ())
    shape = tuple(-1 if n == "?" else int(n) for n in found[1].split("x")[:-1])
    return TensorType(_readable(found[2]), shape)


def _readable(dtype: str) -> str:
    kind = dtype.rstrip("0123456789")
    return "bool" if dtype == "i1" else _PREFIX.get(kind, kind) + dtype[len(kind) :]


@dataclass(frozen=True)
class StoredOp:
    """One operation: its type, the names of what it reads and of what it gives.

    A call of a composite has the composite's type, and ``raw`` is coreai-core's own object.
    """

    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    raw: RawOp

    @property
    def name(self) -> str:
        """That of its first output."""
        return self.outputs[0] if self.outputs else self.type

    def reads(self) -> Iterator[str]:
        """The names of all values that it reads."""
        yield from self.inputs


# Operations that only move values.
DATA_MOVING = frozenset(
    "reshape transpose split slice concat shrink_dims expand_dims pad tile broadcast_to "
    "reverse gather_nd gather_along_axis".split()
)
_UNPACKING = frozenset(
    "blockwise_shift_scale lut_to_dense lut_to_sparse_with_bitmask build_sparse_with_bitmask "
    "sparse_with_bitmask_to_dense".split()
)


@dataclass(frozen=True)
class StoredFunction(Wiring[StoredOp]):
    """A function's operations in order, constants among them, the type of every value, and
    the names that its results have inside."""

    everything: tuple[StoredOp, ...]
    types: Mapping[str, TensorType]
    results: tuple[str, ...] = ()

    @cached_property
    def operations(self) -> list[StoredOp]:
        """What is computed: constants and their unpacking aside."""
        return [op for op in self.everything if not self._constant[op.name]]

    @cached_property
    def _constant(self) -> dict[str, bool]:
        """Whether an operation gives a constant, by its name."""
        found: dict[str, bool] = {}
        for op in self.everything:
            unpacks = op.type in _UNPACKING and all(found.get(n, False) for n in op.inputs)
            found |= dict.fromkeys([op.name, *op.outputs], op.type == "constant" or unpacks)
        return found

    def is_constant(self, name: str) -> bool:
        """Whether a value is a constant."""
        return self._constant.get(name, False)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of what is computed and was given a name, which is what can be looked at."""
        named = (name for op in self.operations for name in op.raw.names if name in self.types)
        return {name: self.types[name].shape for name in named}

    def value(self, name: str) -> Array | None:
        """The values of a small constant; None of anything else."""
        op = self.producers.get(name)
        if op is None or op.type != "constant" or self.types[name].size > _SMALL:
            return None
        return self._stored(name)

    @cached_property
    def weights(self) -> dict[str, Weight]:
        """Constants that are tensors of numbers, by the name under which they are used."""
        weights = {}
        for op in self.everything:
            if not self.is_constant(op.name):
                continue
            is_part = any(self.is_constant(r.name) for r in self.readers.get(op.name, []))
            shape = self.types[op.name].shape
            if not is_part and sum(n > 1 for n in shape) > 1:
                size = sum(map(self._bytes, self._made_of(op)))
                weights[op.name] = Weight(op.name, shape, self.format(op), size)
        return weights

    def _bytes(self, op: StoredOp) -> int:
        """What a constant takes; unpacking takes nothing."""
        if op.type != "constant":
            return 0
        kind = self.types[op.name]
        return kind._replace(shape=()).bytes if op.raw.is_uniform else kind.bytes

    def _made_of(self, op: StoredOp) -> Iterator[StoredOp]:
        """A constant and those that it unpacks."""
        yield op
        for name in op.inputs:
            yield from self._made_of(self.producers[name])

    def array(self, name: str) -> Array:
        """A constant's values, unpacked. Raises PackageError if there is no such constant."""
        if not self.is_constant(name):
            raise PackageError(f"no weight {name!r}")
        return self._evaluated(self.producers[name])

    def _stored(self, name: str) -> Array:
        text = self.producers[name].raw.types[0]
        dtype = re.split("[<x]", text.rstrip(">"))[-1]
        return constant_of(self.producers[name].raw, dtype, self.types[name].shape)

    def _evaluated(self, op: StoredOp) -> Array:
        if op.type == "constant":
            return self._stored(op.name)
        parts = [self._evaluated(self.producers[name]) for name in op.inputs]
        return _UNPACK[op.type](*parts)

    # How a constant is stored, in words.

    def format(self, op: StoredOp) -> str:
        """ "fp16", "4-bit palette", "sparse int8 per channel", …"""
        if op.type == "constant":
            return self.types[op.name].dtype
        makers = [self.producers[name] for name in op.inputs]
        if op.type == "sparse_with_bitmask_to_dense":
            return f"sparse {self.format(makers[0])}"
        if op.type == "build_sparse_with_bitmask":
            return self.format(makers[0])
        inner = f" ({self.format(makers[1])})" if makers[1].type != "constant" else ""
        if op.type == "blockwise_shift_scale":
            return self._scaled(op, makers[0])
        return _palette(self.types[op.inputs[1]].shape) + inner

    def _scaled(self, op: StoredOp, data: StoredOp) -> str:
        codes, scale = (self.types[name] for name in op.inputs[:2])
        stored = self.format(data)
        if scale.size == 1:
            return f"{stored} per tensor"
        blocks = {n // s for n, s in zip(codes.shape, scale.shape, strict=True) if s > 1}
        return f"{stored} per " + ("channel" if blocks == {1} else f"block of {max(blocks)}")


def _palette(table: tuple[int, ...]) -> str:
    *groups, entries, _ = table
    tables = math.prod(groups)
    extra = f", {tables} tables" if tables > 1 else ""
    return f"{round(math.log2(entries))}-bit palette{extra}"


def _dense_of(sparse: tuple[Array, Array]) -> Array:
    values, mask = sparse
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask] = values
    return dense


def _shifted(data: Array, scale: Array, offset: Array, after: Array) -> Array:
    dense = Affine(data, scale, 8, offset if offset.any() else None).dense()
    if not after.any():
        return dense
    return (dense.astype(np.float32) + spread(after, data.shape)).astype(after.dtype)


def _looked_up(indices: Array, table: Array) -> Array:
    bits = round(math.log2(table.shape[-2]))
    return Palette(indices, table[..., 0], bits).dense()


def _sparse_lookup(sparse: Any, table: Array, _: Array) -> tuple[Array, Array]:
    indices, mask = sparse
    dense = np.zeros(mask.shape, indices.dtype)
    dense[mask] = indices
    return _looked_up(dense, table)[mask], mask


_UNPACK: dict[str, Any] = {
    "blockwise_shift_scale": _shifted,
    "lut_to_dense": lambda indices, table, _: _looked_up(indices, table),
    "build_sparse_with_bitmask": lambda values, mask: (values, mask != 0),
    "sparse_with_bitmask_to_dense": _dense_of,
    "lut_to_sparse_with_bitmask": _sparse_lookup,
}


def stored_function(raw: RawFunction, composites: Mapping[str, str]) -> StoredFunction:
    """``composites`` gives the kind of each composite by its name."""
    names = dict(enumerate(raw.arguments))
    types = {n: parsed(t) for n, t in zip(raw.arguments, raw.argument_types, strict=True)}
    last = {name: op for op in raw.operations for name in op.names}
    taken = {*types, *last}
    operations = []
    results: tuple[str, ...] = ()
    for op in raw.operations:
        kind = composites.get(op.callee, op.kind)
        is_it = all(last[name] is op for name in op.names)  # of several made from one, the last
        given = op.names if op.names and is_it else _made_up(op, kind, taken)
        names |= zip(op.results, given, strict=True)
        types |= {n: parsed(t) for n, t in zip(given, op.types, strict=True)}
        inputs = tuple(names[number] for number in op.operands)
        if op.kind == "output":
            results = inputs
        else:
            operations.append(StoredOp(kind, inputs, given, op))
    return StoredFunction(tuple(operations), types, results)


def _made_up(op: RawOp, kind: str, taken: set[str]) -> tuple[str, ...]:
    """Names for results that have none."""
    made = []
    for _ in op.results:
        made.append(free_name("c" if op.kind == "constant" else f"step_{kind}", taken))
        taken.add(made[-1])
    return tuple(made)
