"""Record what an MLX function computes, primitive by primitive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import mlx.core as mx
import numpy as np

from ondevice.cpu import kernels

from .graph import Array, Graph, Node, Value, computed
from .ops import ARG_REDUCTIONS, BITWISE, LOGARITHMS, REDUCTIONS, SCANS
from .untouched import plain_functions

Record = dict[str, Any]
# Operations that give their last inputs as they are, or their first: of MLX's transformations.
_LAST, _FIRST = frozenset({"CustomTransforms"}), frozenset({"Depends"})
# What stands for a type that a package computes in float32.
_FLOATS = dict.fromkeys(("float16", "bfloat16", "float64"), "float32")


def trace_function(fn: Callable[..., Any], /, *inputs: mx.array) -> Graph:
    """Record the primitives of ``fn(*inputs)``; the name of any value starts with ``%``."""
    return to_graph(record(fn, inputs), {})


def record(fn: Callable[..., Any], inputs: Sequence[mx.array]) -> list[Record]:
    """What MLX's export hands over for ``fn(*inputs)``: see ``to_graph``.

    Arrays that ``fn`` finds elsewhere are constants; how a lazy one is made is recorded too.
    """
    records: list[Record] = []
    with mx.stream(mx.cpu), kernels.plain(), plain_functions():
        mx.export_function(records.append, fn, tuple(inputs), {})
    return records


# Coarser than float32, the finest first.
HALVES = {mx.float16: "float16", mx.bfloat16: "bfloat16"}


def rounding(records: Iterable[Record]) -> str:
    """The coarsest type below float32 of what depends on the inputs; "" if there is none."""
    moving: set[str] = set()
    found: set[mx.Dtype] = set()
    for record in records:
        if record["type"] == "inputs":
            moving |= {id_ for id_, *_ in record["inputs"]}
        elif record["type"] == "primitive" and moving & {id_ for id_, *_ in record["inputs"]}:
            moving |= {id_ for id_, *_ in record["outputs"]}
            found |= {dtype for *_, dtype in record["outputs"]}
    return next((name for kind, name in reversed(HALVES.items()) if kind in found), "")


def primitives(records: Iterable[Record]) -> list[Record]:
    return [r for r in records if r["type"] == "primitive"]


def aliases(record: Record) -> dict[str, str]:
    """Which of a primitive's inputs its outputs are, if that is all that it does."""
    inputs, outputs = ([id_ for id_, *_ in record[key]] for key in ("inputs", "outputs"))
    if record["name"] in _LAST:
        return dict(zip(outputs, inputs[-len(outputs) :], strict=True))
    return dict(zip(outputs, inputs, strict=False)) if record["name"] in _FIRST else {}


def to_graph(records: list[Record], named: Mapping[str, mx.array]) -> Graph:
    """The graph of a record. Constants in the memory of those ``named`` have their names."""
    by_type: dict[str, list[Record]] = {}
    for found in records:
        by_type.setdefault(found["type"], []).append(found)
    [inputs], [outputs] = (by_type[key] for key in ("inputs", "outputs"))
    constants = {k: v for r in by_type.get("constants", []) for k, v in r["constants"]}
    known = _names(constants, named)
    for found in by_type.get("primitive", []):
        known |= {copy: known.get(id_) or numbered(id_) for copy, id_ in aliases(found).items()}

    def name(id_: str) -> str:
        return known.get(id_) or numbered(id_)

    def value(id_: str, shape: Sequence[int], dtype: mx.Dtype) -> Value:
        return Value(name(id_), tuple(shape), _type(dtype))

    return Graph(
        inputs=tuple(value(*v) for v in inputs["inputs"]),
        outputs=tuple(name(id_) for id_, *_ in outputs["outputs"]),
        constants={name(id_): to_numpy(array) for id_, array in constants.items()},
        nodes=tuple(
            Node(
                op=RENAMED.get(r["name"]) or r["name"],
                inputs=tuple(name(id_) for id_, *_ in r["inputs"]),
                outputs=tuple(value(*v) for v in r["outputs"]),
                args=_named(r["name"], _frozen(r["arguments"])),
            )
            for r in by_type.get("primitive", [])
            if not aliases(r)
        ),
    ).check()


def numbered(id_: str) -> str:
    """``%27`` for MLX's ``AB``: MLX counts in letters, as a user may call an input."""
    return computed(str(reduce(lambda n, c: 26 * n + ord(c) - ord("A") + 1, id_, 0) - 1))


def _names(constants: Mapping[str, mx.array], named: Mapping[str, mx.array]) -> dict[str, str]:
    """The path of every constant that is a parameter, one name for equal others."""
    paths: dict[Any, str] = {}
    for path, array in named.items():
        if array.size:
            paths.setdefault(_place(array), path)
    found = {id_: paths.get(_place(array)) for id_, array in constants.items()}
    literals = {id_: to_numpy(constants[id_]) for id_, path in found.items() if not path}
    return {id_: path for id_, path in found.items() if path} | _merged(literals)


def _place(array: mx.array) -> tuple[Any, ...]:
    """Where an array lies in memory, and how."""
    seen = np.asarray(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)
    pointer = seen.__array_interface__["data"][0]
    return (pointer, seen.shape, seen.strides, array.dtype)


def _type(dtype: mx.Dtype) -> str:
    name = str(dtype).removeprefix("mlx.core.")
    return _FLOATS.get(name, name)


def _merged(literals: dict[str, Array]) -> dict[str, str]:
    first: dict[Any, str] = {}
    return {
        id_: first.setdefault((a.dtype.str, a.shape, a.tobytes()), numbered(id_))
        for id_, a in literals.items()
    }


# Of these MLX gives an argument, here by its place, as a number; it stands for a name.
_WRITES = ("max", "min", "sum", "prod", "none")
_MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
_KINDS: dict[str, tuple[int, Sequence[str]]] = {
    "ArgReduce": (0, tuple(ARG_REDUCTIONS)),
    "BitwiseBinary": (0, tuple(BITWISE)),
    "Log": (0, tuple(LOGARITHMS)),
    "Quantize": (2, _MODES),
    "QuantizedMatmul": (2, _MODES),
    "Reduce": (0, tuple(REDUCTIONS)),
    "Scan": (0, tuple(SCANS)),
    "Scatter": (0, _WRITES),
    "ScatterAxis": (0, ("sum", "none")),
    "SliceUpdate": (0, _WRITES),
}
RENAMED = {"Quantize": "AffineQuantize"}  # the other is of activations, with one scale


def _named(op: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if op == "Softmax":  # of the last axis; its argument only says how precise it is
        return ()
    if op in _KINDS:
        place, names = _KINDS[op]
        return (*args[:place], names[args[place]], *args[place + 1 :])
    return args


def to_numpy(array: mx.array) -> Array:
    """The array in numpy, without a copy where MLX allows it; floats as float32."""
    is_float = mx.issubdtype(array.dtype, mx.floating)
    found = np.asarray(array.astype(mx.float32) if is_float else array)
    found.flags.writeable = False  # it is the model's own
    return found


def _frozen(value: Any) -> Any:
    if isinstance(value, mx.Dtype):
        return mx.float32 if mx.issubdtype(value, mx.floating) else value
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
