"""A MIL function made ready to run: constants decompressed once, one call per operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import numpy as np

from ondevice.errors import PackageError

from .registry import EVALUATORS, Array, Kernel
from .rounding import round_to_float16

# Reads an argument from the values computed so far.
Read = Callable[[Mapping[str, Any]], Any]
_HALF = "fp16"


@dataclass(frozen=True)
class Step:
    """One operation: what it reads and writes, by MIL name."""

    op_type: str
    run: Kernel
    reads: tuple[tuple[str, Read], ...]
    outputs: tuple[str, ...]
    round: tuple[bool, ...]  # the outputs that are stored as float16 and may need it
    frees: tuple[str, ...]  # values nobody needs after this

    def __call__(self, values: dict[str, Any]) -> None:
        try:
            result = self.run(**{name: read(values) for name, read in self.reads})
        except Exception as error:
            raise PackageError(f"{self.op_type} {self.outputs[0]!r}: {error}") from error
        results = result if isinstance(result, tuple) else (result,)
        for name, value, rounded in zip(self.outputs, results, self.round, strict=True):
            values[name] = round_to_float16(value) if rounded else value


@dataclass(frozen=True)
class Plan:
    """A function that can be run any number of times."""

    constants: Mapping[str, Any]
    half_inputs: frozenset[str]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]

    def run(
        self, inputs: Mapping[str, Array], keep: Callable[[str], bool] | None = None
    ) -> dict[str, Any]:
        """The outputs by MIL name, and every intermediate value whose name ``keep`` accepts."""
        kept: dict[str, Any] = {}
        values = self._start(inputs)
        for step in self._each(values):
            if keep:
                kept.update((n, values[n]) for n in step.outputs if keep(n))
        return kept | {name: values[name] for name in self.outputs}

    def walk(self, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Any]]:
        """Every computed value with its MIL name, one after the other; none is kept."""
        values = self._start(inputs)
        for step in self._each(values):
            yield from ((name, values[name]) for name in step.outputs)

    def _start(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        half = self.half_inputs
        given = {n: round_to_float16(v) if n in half else v for n, v in inputs.items()}
        return {**self.constants, **given}

    def _each(self, values: dict[str, Any]) -> Iterator[Step]:
        """Take every step, and drop from ``values`` what nobody needs any more."""
        for step in self.steps:
            with np.errstate(all="ignore"):  # infinities are results here, not accidents
                step(values)
            yield step
            for name in step.frees:
                del values[name]


def compile_function(function: Any) -> Plan:
    """Raises PackageError that lists every operation without an evaluator."""
    operations = list(function.operations)
    _check_known(operations)
    stored = stored_constants(operations)
    active = [op for op in operations if not _is_constant(op)]
    outputs = tuple(v.name for v in function.outputs)
    return Plan(
        constants={name: _computable(value) for name, value in stored.items()},
        half_inputs=frozenset(n for n, v in function.inputs.items() if _is_half(v)),
        steps=tuple(_steps(active, set(outputs) | stored.keys())),
        outputs=outputs,
    )


def stored_constants(operations: Iterable[Any]) -> dict[str, Any]:
    """All constants by MIL name, the compressed ones decompressed. Raises PackageError."""
    stored: dict[str, Any] = {}
    for op in operations:
        if _is_constant(op):
            stored.update(_constants(op, stored))
    return stored


def _is_constant(op: Any) -> bool:
    return op.op_type == "const" or op.op_type.startswith("constexpr_")


def _check_known(operations: list[Any]) -> None:
    unknown = Counter(
        op.op_type for op in operations if not _is_constant(op) and op.op_type not in EVALUATORS
    )
    if unknown:
        listed = ", ".join(f"{name} (x{n})" for name, n in unknown.most_common())
        raise PackageError(f"the reference cannot evaluate {listed}")


def _constants(op: Any, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a constant operation, by name. Raises PackageError."""
    if op.op_type == "const":
        return {op.outputs[0].name: op.outputs[0].val}
    try:
        result = _decompressed(op, stored)
    except Exception as error:  # coremltools checks few of the sizes that must fit together
        raise PackageError(f"{op.op_type} {op.outputs[0].name!r}: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    return {v.name: r for v, r in zip(op.outputs, results, strict=True)}


def _decompressed(op: Any, stored: Mapping[str, Any]) -> Any:
    """A compressed weight's values, whose parts may be compressed again."""
    if not hasattr(op, "decompress"):  # constexpr_cast
        return op.materialized_val_inference()
    parts = {n: None if v is None else stored[v.name] for n, v in _inputs(op).items()}
    accepted = signature(type(op).decompress).parameters
    return type(op).decompress(**{n: parts.get(n) for n in accepted})


def _inputs(op: Any) -> dict[str, Any]:
    return {name: var for name, var in op.inputs.items() if name != "name"}


def _computable(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _is_half(var: Any) -> bool:
    from coremltools.converters.mil.mil import types

    return var.dtype is not None and var.dtype == types.fp16


def _steps(operations: list[Any], kept: set[str]) -> Iterator[Step]:
    last_use = {name: index for index, op in enumerate(operations) for name in _names_read(op)}
    for index, op in enumerate(operations):
        evaluator = EVALUATORS[op.op_type]
        reads = tuple((n, _read(v)) for n, v in _inputs(op).items() if v is not None)
        _check_signature(op, evaluator.run, [name for name, _ in reads])
        names = tuple(v.name for v in op.outputs)
        ends = [n for n in _names_read(op) if last_use[n] == index]
        unread = [n for n in names if n not in last_use]
        yield Step(
            op_type=op.op_type,
            run=evaluator.run,
            reads=reads,
            outputs=names,
            round=tuple(_is_half(v) and not evaluator.exact for v in op.outputs),
            frees=tuple(n for n in {*ends, *unread} if n not in kept),
        )


def _names_read(op: Any) -> Iterator[str]:
    for var in _inputs(op).values():
        if isinstance(var, list | tuple):
            yield from (v.name for v in var)
        elif var is not None:
            yield var.name


def _read(var: Any) -> Read:
    if isinstance(var, list | tuple):
        return partial(_read_all, names=tuple(v.name for v in var))
    return partial(_read_one, name=var.name)


def _read_one(values: Mapping[str, Any], name: str) -> Any:
    return values[name]


def _read_all(values: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(values[n] for n in names)


def _check_signature(op: Any, run: Kernel, names: list[str]) -> None:
    try:
        signature(run).bind(**dict.fromkeys(names))
    except TypeError as error:
        raise PackageError(f"{op.op_type} {op.outputs[0].name!r}: {error}") from error
