"""Saved programs read and run with coreai-core: its private half, behind plain functions.

See ``authoring.py`` for what that means.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import (
    copy_constant_value_to_array,
)
from coreai._compiler._mlir_libs._coreaiIR._bindings.mlir import (
    get_file_line_col_locations,
)
from coreai.authoring import AIModelAsset
from coreai.runtime import AIModel, NDArray

from ondevice.errors import PackageError

from ..graph.graph import Array, Shape
from .authoring import NUMPY, STEP, UNNAMED, is_sound, is_splat, vouch

T = TypeVar("T")
_MAGIC = b"ML\xefR"  # starts MLIR's bytecode


# -- a saved program, read


@dataclass(frozen=True)
class RawOp:
    """One operation of a saved program; ``names`` are those we gave its results, if any.

    ``mlir`` is coreai-core's object, which is only good as long as ``program`` is alive.
    """

    kind: str
    names: tuple[str, ...]
    operands: tuple[int, ...]
    results: tuple[int, ...]
    types: tuple[str, ...]
    callee: str
    is_uniform: bool  # a constant that is one number many times, and stored so
    mlir: Any
    program: Any


@dataclass(frozen=True)
class RawFunction:
    """A function of a saved program; values are numbers, ``arguments`` the first of them."""

    name: str
    private: bool
    composite: str
    arguments: tuple[str, ...]
    argument_types: tuple[str, ...]
    results: tuple[str, ...]
    result_types: tuple[str, ...]
    operations: tuple[RawOp, ...]


def read_functions(program: Any) -> dict[str, RawFunction]:
    """The functions of a program by name, in order."""
    found = [op for op in program._module._body.operations if op.name == "coreai.graph"]
    return {f.name: f for f in (_function(graph, program) for graph in found)}


def _function(graph: Any, program: Any) -> RawFunction:
    is_ours = _file(program._module._mlir_module.operation) == UNNAMED
    block = graph.regions[0].blocks[0]
    numbers = {value: i for i, value in enumerate(block.arguments)}
    made = []
    for op in block.operations:
        results = tuple(range(len(numbers), len(numbers) + len(op.results)))
        operands = tuple(numbers[v] for v in op.operands)
        numbers.update(zip(op.results, results, strict=True))
        types = tuple(str(r.type) for r in op.results)
        made.append(
            RawOp(
                kind=op.name.removeprefix("coreai.").removeprefix("decomposable."),
                names=_names(op) if is_ours else (),
                operands=operands,
                results=results,
                types=types,
                callee=_callee(op),
                is_uniform="value" in op.attributes and is_splat(op.attributes["value"]),
                mlir=op,
                program=program,
            )
        )
    attributes = graph.attributes
    signature = attributes["function_type"].value
    declared = str(attributes["composite_decl"]) if "composite_decl" in attributes else ""
    return RawFunction(
        name=attributes["sym_name"].value,
        private="priv" in attributes,
        composite=declared.split('"')[1] if declared else "",
        arguments=_io_names(attributes, "arg_attrs"),
        argument_types=tuple(map(str, signature.inputs)),
        results=_io_names(attributes, "res_attrs"),
        result_types=tuple(map(str, signature.results)),
        operations=tuple(made),
    )


def _io_names(attributes: Any, which: str) -> tuple[str, ...]:
    return tuple(a["coreai.name"].value for a in attributes[which])


def _file(op: Any) -> str:
    """What an operation's location has for a file's name: in our programs its own name."""
    places = get_file_line_col_locations(op.location)
    return places[0].filename if places else ""


def _names(op: Any) -> tuple[str, ...]:
    """The names of an operation's results, if it has as many."""
    names = tuple(_file(op).split(" "))
    has_names = len(names) == len(op.results) and names[0] not in {STEP, UNNAMED, "-", ""}
    return names if has_names else ()


def _callee(op: Any) -> str:
    text = str(op.attributes["callee"]) if "callee" in op.attributes else ""
    return text.partition("@")[2].partition(">")[0].strip('"')


def constant_of(op: RawOp, dtype: str, shape: Shape) -> Array:
    """A constant's values; ``dtype`` as in the program. Raises PackageError for another."""
    count = int(np.prod(shape))
    if found := re.fullmatch(r"([su])i([1-7])", dtype):
        bits = int(found[2])
        data = _bytes(op, (count * bits + 7) // 8)
        return unpack(data, bits, found[1] == "s", shape)
    if dtype not in NUMPY:
        raise PackageError(f"a constant of type {dtype} is not read here")
    return _bytes(op, count * NUMPY[dtype].itemsize).view(NUMPY[dtype]).reshape(shape)


def _bytes(op: RawOp, size: int) -> Array:
    data = np.empty(size, np.uint8)
    copy_constant_value_to_array(constant_op=op.mlir, destination=data)
    return data


def unpack(data: Array, bits: int, signed: bool, shape: Shape) -> Array:
    """What ``authoring.pack`` made, as int8 or uint8."""
    count = int(np.prod(shape))
    columns = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    values = np.packbits(columns, axis=1, bitorder="little")[:, 0].astype(np.int16)
    if signed:
        values = np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
    return values.astype(np.int8 if signed else np.uint8).reshape(shape)


# -- running


class _Loop:
    """An event loop in a thread of its own: coreai-core is asynchronous, we are not."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        atexit.register(self.stop)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()

    def stop(self) -> None:
        """A thread that wakes up while Python ends would be one that coreai-core aborts in;
        its own threads let go of our objects a moment after a result is there."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        time.sleep(_LET_GO)


_LET_GO = 0.05  # seconds
_LOOPS: list[_Loop] = []


def _run(call: Coroutine[Any, Any, T]) -> T:
    if not _LOOPS:
        _LOOPS.append(_Loop())
    return _LOOPS[0].run(call)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the line that the runtime writes to standard error for each function."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# What ends the process that does it with a program that is wrong: coreai-core has assertions
# where others have errors, and its loading of what cannot be parsed has no way back.
_READ = """
import sys
from pathlib import Path
from coreai._compiler.ir import Module
from coreai.authoring import AIModelAsset
from coreai.authoring.context import Context
path = Path(sys.argv[1])
with Context():
    Module.parse((path / "main.mlirb").read_bytes())
asset = AIModelAsset.load(path)
asset.program
"""
_COMPILE = (
    _READ
    + """
from tempfile import TemporaryDirectory
with TemporaryDirectory(suffix=".aimodelx") as folder:
    asset._write_odix(Path(folder), enable_debug_info=False)
"""
)


def _try(path: Path, code: str, seconds: int) -> None:
    """Do it in another process first. Raises ValueError where that one ends otherwise than
    well, with what it said last."""
    if is_sound(path):
        return
    command = [sys.executable, "-c", code, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ValueError(f"coreai-core does not come to an end in {seconds} s") from None
    if done.returncode < 0:
        raise ValueError(f"coreai-core crashes on its program (signal {-done.returncode})")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
        raise ValueError(next((line for line in lines if "error:" in line), lines[-1]))


def open_asset(path: Path, code: bytes) -> AIModelAsset:
    """The package at ``path``, whose program is ``code``. Raises ValueError or RuntimeError."""
    if not code.startswith(_MAGIC):
        raise ValueError("its program is not MLIR bytecode")
    _try(path, _READ, seconds=60)
    return AIModelAsset.load(path)


class Runner:
    """A saved program, compiled for this machine; functions are loaded as they are called.

    Raises ValueError or RuntimeError for one that cannot be compiled.
    """

    def __init__(self, asset: AIModelAsset) -> None:
        if sys.platform != "darwin":  # where the system compiles it, in a process of its own
            _try(Path(asset.path), _COMPILE, seconds=600)
        self.model = _run(_load(asset))
        vouch(Path(asset.path))
        self.functions: dict[str, Any] = {}

    def call(self, function: str, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Outputs by name. Arrays are of the declared types; images are Pillow's (macOS)."""
        if function not in self.functions:
            with _quiet():
                self.functions[function] = self.model.load_function(function)
        return _run(_call(self.functions[function], inputs))


def exposed(asset: AIModelAsset, function: str) -> tuple[Runner, list[str]]:
    """The program with every value of ``function`` that has a name as an output, and the
    names in order. What it computes is the same.

    coreai-core's own way to see values, its ``IntermediateLogger``, reports what it compiled a
    composite to without saying of which call, and aborts the process when Python ends.
    """
    program = asset.program
    graph = program._get_graph(function)
    with program._module._context, graph.location:
        outputs = dict(graph.outputs_spec)
        order: dict[str, None] = {}
        for op in _function(graph, program).operations:
            if op.kind != "constant":
                order |= dict.fromkeys(op.names)
                outputs |= zip(op.names, op.mlir.results, strict=bool(op.names))
        graph.outputs_spec = list(outputs.items())
        for other in list(program._module._body.operations):
            name = other.attributes["sym_name"].value
            if "priv" not in other.attributes and name != function:
                other.operation.erase()  # it may call this one, whose type is another now
    with TemporaryDirectory() as folder:
        made = program.save_asset(Path(folder) / "exposed.aimodel")
        if is_sound(Path(asset.path)):
            vouch(Path(made.path))
        runner = Runner(made)
    return runner, list(order)


async def _load(asset: AIModelAsset) -> AIModel:
    if sys.platform == "darwin":
        return await AIModel.load(path=asset.path)
    with TemporaryDirectory(suffix=".aimodelx") as folder:
        asset._write_odix(Path(folder), enable_debug_info=False)
        return await AIModel.load(path=folder)


async def _call(function: Any, inputs: Mapping[str, Any]) -> dict[str, Array]:
    given = {n: NDArray(x) if isinstance(x, np.ndarray) else x for n, x in inputs.items()}
    results = await function(given)
    return {name: np.array(value.numpy()) for name, value in results.items()}
