"""Programs made with coreai-core: its private half, behind plain functions.

All that is private of that library, or has moved between its betas, is in this file and in
``runtime.py``; ``tests/converters/coreai/test_contract.py`` states what is relied on, and has
to pass before another version than ``required.VERSION`` is allowed. Lowerings call what is
public: the operations of ``coreai.authoring``, and its ``Value`` with type and shape.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import coreai.authoring as ca
import numpy as np
from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import (
    copy_constant_value_to_array,
)
from coreai._compiler._mlir_libs._coreaiIR._bindings.mlir import set_op_location
from coreai._compiler._mlir_libs._coreaiIR._bindings.mlir.dialects.coreai import FourCC
from coreai._compiler.dialects._coreai_ops_gen import ConstantOp
from coreai._compiler.ir import (
    Attribute,
    DenseElementsAttr,
    DenseResourceElementsAttr,
    FloatAttr,
    InsertionPoint,
    IntegerAttr,
    IntegerType,
    RankedTensorType,
)
from coreai.authoring import AIProgram, DebugInfo, Module, SymbolRefScope, TensorType, Value
from coreai.authoring.constant import constant as _constant
from coreai.authoring.context import Context
from coreai.authoring.coreai_types import ImageType

from ondevice.errors import UnsupportedOpError

from ..graph.graph import Array, Shape

Body = Callable[..., Sequence[Value]]
NUMPY = {
    name: np.dtype(kind)
    for name, kind in {
        "f16": "float16", "f32": "float32", "i1": "bool", "si8": "int8", "ui8": "uint8",
        "si16": "int16", "ui16": "uint16", "si32": "int32", "ui32": "uint32",
    }.items()
}  # fmt: skip
UNNAMED = "ondevice"  # stands where a file's name would, in the locations of a program
_INLINE = 256  # bytes from which on an array is stored beside the operations
STEP = "step"  # names what is computed on the way to a value that has a name


@dataclass
class Builder:
    """A module that functions are added to, and what they share."""

    module: Module
    stored: dict[tuple[Any, ...], Attribute] = field(default_factory=dict)
    composites: dict[Any, Callable[..., list[Value]]] = field(default_factory=dict)
    known: dict[Value, tuple[Array, str, str]] = field(default_factory=dict)


_BUILDERS: ContextVar[Builder] = ContextVar("builder")


def new_builder() -> Builder:
    """An empty module, in a context of its own, that remembers no path of this machine."""
    with Context(), _at(UNNAMED).activate():
        return Builder(Module.create())


@contextmanager
def building(builder: Builder) -> Iterator[None]:
    """What is made in the block becomes part of the module, which is simplified at its end.

    Raises UnsupportedOpError for what coreai-core finds wrong with the whole.
    """
    token = _BUILDERS.set(builder)
    try:
        with builder.module:
            yield
        with builder.module._context, _at(UNNAMED).activate():
            _store_folded(builder)
        builder.module.verify()
    except RuntimeError as error:
        raise UnsupportedOpError(f"cannot export: {first_line(error)}") from error
    finally:
        _BUILDERS.reset(token)


def is_splat(attribute: Attribute) -> bool:
    """Whether it is one number, many times."""
    is_dense = DenseElementsAttr.isinstance(attribute)
    return bool(is_dense and DenseElementsAttr(attribute).is_splat)


def first_line(error: BaseException) -> str:
    """Without the place in the program that coreai-core puts before each message."""
    text = str(error).partition("\n")[0]
    return re.sub(r"(pipeline: )?at #debuginfo.*?>: (?=')", "", text)


def _store_folded(builder: Builder) -> None:
    """Store what coreai-core has computed from constants the way that our own are."""
    ours = set(builder.stored.values())
    for graph in builder.module._body.operations:
        for op in graph.regions[0].blocks[0].operations:
            if op.name == "coreai.constant" and not (
                op.attributes["value"] in ours or is_splat(op.attributes["value"])
            ):
                kind = RankedTensorType(op.results[0].type)
                dtype = NUMPY.get(str(kind.element_type))
                count = int(np.prod(kind.shape))
                if dtype is None or count * dtype.itemsize < _INLINE:
                    continue
                data = np.empty(count * dtype.itemsize, np.uint8)
                copy_constant_value_to_array(constant_op=op, destination=data)
                op.attributes["value"] = _attribute(data, tuple(kind.shape), kind.element_type)


def tensor(shape: Shape, dtype: Any) -> TensorType:
    return TensorType(shape, np.dtype(dtype).type)


def image(height: int, width: int) -> ImageType:
    """An RGB image of 8 bits a channel."""
    return ImageType(FourCC.RGB24, height, width)


def define(
    name: str,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, TensorType],
    body: Body,
    **options: Any,
) -> Callable[..., list[Value]]:
    """Add a function to the module that is being built; what is returned calls it.

    ``body`` takes a value for each input and gives one for each output.
    """

    def function(*values: Value) -> tuple[Value, ...]:
        return tuple(body(*values))

    # coreai-core reads types from a signature, and where the code is from its code object.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(n, kind) for n in inputs])
    results = tuple(Annotated[Value, t.with_name(n)] for n, t in outputs.items())
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__annotations__ = {n: Annotated[Value, t] for n, t in inputs.items()}
    function.__annotations__["return"] = tuple[results]  # type: ignore[valid-type]
    function.__name__ = name
    function.__code__ = function.__code__.replace(co_filename=UNNAMED, co_firstlineno=1)
    return ca.graph(function, **options)


def composite(
    kind: str,
    inputs: Mapping[str, Value],
    shape: Shape,
    body: Body,
    **attributes: int | float | bool | list[int],
) -> Value:
    """Call a function that the device's compiler may replace by its own ``kind``.

    ``shape`` is the output's; its type is that of the first input. Equal calls share one
    function, whose name is its kind and number, and so the same in every build.
    """
    builder = _BUILDERS.get()
    types = {name: v.type for name, v in inputs.items()}
    output = TensorType(shape, next(iter(types.values())).dtype)
    key = (kind, *map(str, types.items()), str(attributes))
    if key not in builder.composites:
        number = sum(k[0] == kind for k in builder.composites)
        declared = _declaration(kind, [*inputs], attributes)
        options = {"private": True, "no_inline": True, "composite_decl": declared}
        with InsertionPoint.at_block_begin(builder.module._body):
            builder.composites[key] = define(
                f"{kind}_{number}", types, {"output": output}, body, **options
            )
    (result,) = builder.composites[key](*inputs.values())
    return result


def _declaration(kind: str, inputs: list[str], attributes: Mapping[str, Any]) -> Attribute:
    names = ", ".join(f'"{name}"' for name in inputs)
    written = ", ".join(f"{n} = {_written(v)}" for n, v in {**attributes, "version": 1}.items())
    return Attribute.parse(
        f'#coreai.composite_declaration<"{kind}" = {{input_names = [{names}], '
        f'op_attrs = {{{written}}}, output_names = ["output"]}}>'
    )


def _written(value: Any) -> str:
    """A composite's attribute as MLIR's text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value} : si64"
    if isinstance(value, float):
        return f"{np.float32(value):e} : f32"
    return f"[{', '.join(map(_written, value))}]"


# -- where a value is from, which carries its name


def _at(name: str, function: str = "main") -> DebugInfo:
    # Line 0 would be no location at all.
    return DebugInfo.file(name, 1).with_scope(SymbolRefScope(function))


@contextmanager
def steps(function: str) -> Iterator[None]:
    """What is made in the block has no name of its own."""
    with _at(STEP, function).activate():
        yield


def set_names(values: Sequence[Value], names: Sequence[str], function: str) -> None:
    """Name the results of one operation; the names of several are kept in one, by spaces."""
    maker = values[0].defining_op
    if maker is not None:
        set_op_location(maker._to_mlir(), _at(" ".join(names), function)._to_mlir())


# -- constants


def constant(array: Array, name: str, function: str = "main") -> Value:
    array = np.asarray(array, order="C")
    if array.nbytes < _INLINE:
        made = _constant(array, loc=_at(name, function))
    else:
        kind = tensor((), array.dtype)._to_mlir().element_type
        made = _stored(_attribute(array, array.shape, kind), name, function)
    _BUILDERS.get().known[made] = array, name, function
    return made


def value_of(value: Value) -> Array | None:
    """The values of what ``constant`` made; None of anything else."""
    found = _BUILDERS.get().known.get(value)
    return None if found is None else found[0]


def instead(value: Value, array: Array) -> Value:
    """The constant ``value`` with other values under its name."""
    _, name, function = _BUILDERS.get().known[value]
    return constant(array, name, function)


def literal(array: Array) -> Value:
    """A constant without a name of its own."""
    return constant(array, STEP)


def packed(array: Array, bits: int, signed: bool) -> Value:
    """Integers of fewer than eight bits, as many to a byte as fit, least significant first.

    coreai-core's own ``constant`` stores a byte for each, which crashes its compiler.
    """
    make = IntegerType.get_signed if signed else IntegerType.get_unsigned
    return _stored(_attribute(pack(array, bits), array.shape, make(bits)), STEP, "main")


def zeros(shape: Shape, like: Value) -> Value:
    """As many zeros of the type that ``like`` has, stored as one."""
    kind = RankedTensorType(like._to_mlir().type).element_type
    is_float = str(kind).startswith("f")
    zero = FloatAttr.get(kind, 0.0) if is_float else IntegerAttr.get(kind, 0)
    splat = DenseElementsAttr.get_splat(RankedTensorType.get(shape, kind), zero)
    return _stored(splat, STEP, "main")


def _stored(attribute: Attribute, name: str, function: str) -> Value:
    made = ConstantOp(value=attribute, loc=_at(name, function)._to_mlir())
    return Value._from_mlir(made.result)


def _attribute(data: Array, shape: Shape, kind: Any) -> Attribute:
    """Bytes that are stored once however often they are asked for.

    coreai-core would call them by a random number: equal programs would be unequal files.
    """
    stored = _BUILDERS.get().stored
    key = (shape, str(kind), hashlib.sha256(data.data).digest())
    if key not in stored:
        stored[key] = DenseResourceElementsAttr.get_from_buffer(
            data, f"data_{len(stored)}", RankedTensorType.get(shape, kind)
        )
    return stored[key]


def pack(array: Array, bits: int) -> Array:
    columns = np.unpackbits(
        array.reshape(-1, 1).astype(np.uint8), axis=1, count=bits, bitorder="little"
    )
    return np.packbits(columns.ravel(), bitorder="little")


# -- files


PROGRAM = "main.mlirb"
_OWN: set[bytes] = set()  # SHA-256 of programs that this process wrote, or saw to be sound


def write_program(module: Module, path: Path) -> None:
    """The program's bytes in the folder ``path``: the same for the same program."""
    AIProgram(module).save_asset(path)
    vouch(path)


def vouch(path: Path) -> None:
    """Have the program in the folder ``path`` taken for sound."""
    _OWN.add(_digest(path))


def is_sound(path: Path) -> bool:
    return _digest(path) in _OWN


def _digest(path: Path) -> bytes:
    return hashlib.sha256((path / PROGRAM).read_bytes()).digest()
