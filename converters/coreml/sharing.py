"""What a package need not repeat: strides and paddings, paths, 64 bytes around each vector.

Nothing is left out that Core ML reads: arguments that its specification calls optional are
written as coremltools writes them, since Core ML asks for some of them all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Program, Var

_SHARED = 9  # elements of a constant that is looked for elsewhere
_INLINE = 2048  # bytes of a constant that is kept beside the operations


@contextmanager
def small_constants_inline() -> Iterator[None]:
    """Let coremltools write biases, scales, tables and the smallest kernels into the program.

    It puts all floats and bytes of ten elements or more into the weight file, each behind a
    header of 64 bytes and at a multiple of 64, with a reference of 50 more. That is as much
    as a vector of 80 half-precision values takes. Integers of other widths stay as they are.

    coremltools has no option for it. Within the context its own choice is replaced, for the
    whole process; ``test_sharing.py`` fails if a release makes that choice elsewhere.
    """
    from coremltools.converters.mil.backend.mil import load

    original = load.should_use_weight_file

    def chosen(value: Any, *rest: Any) -> bool:
        return original(value, *rest) and not _is_small(value)

    load.should_use_weight_file = chosen
    try:
        yield
    finally:
        load.should_use_weight_file = original


def _is_small(value: Any) -> bool:
    """Floats and whole bytes; integers of fewer bits have their width in the metadata."""
    dtype = value.dtype
    plain = dtype.kind == "f" or (dtype.itemsize == 1 and dtype.metadata is None)
    return bool(plain and value.nbytes <= _INLINE)


def share_constants(program: Program) -> Program:
    """Let all operations that need the same small constant read the same one.

    A convolution has six arguments that are constants, equal in most convolutions; each costs
    130 bytes where the weights of a small model cost a few thousand.
    """
    for function in program.functions.values():
        first: dict[Any, Var] = {}
        with function:
            for op in list(function.operations):
                if op.op_type != "const" or (key := _key(op.outputs[0])) is None:
                    continue
                kept = first.setdefault(key, op.outputs[0])
                if kept is not op.outputs[0] and op.outputs[0] not in function.outputs:
                    function.replace_uses_of_var_after_op(
                        anchor_op=op, old_var=op.outputs[0], new_var=kept
                    )
                    function.remove_ops([op])
    return program


def shorten_names(program: Program) -> Program:
    """Give constants that nobody looks up the shortest name that is free: c0, c1, …

    A path is written where a value is made and wherever it is read, and once more as the name
    of the operation that makes it, to which nothing refers. Weights keep theirs as values;
    arguments, biases and scales are told by the layer that reads them.
    """
    for function in program.functions.values():
        names = _free_names(function)
        constants = [op for op in function.operations if op.op_type.startswith("const")]
        for op in sorted(constants, key=_is_weight):
            op.name = next(names)
            if not _is_weight(op):
                op.outputs[0].name = op.name
    return program


def _is_weight(op: Any) -> bool:
    value = op.outputs[0].val
    return op.op_type != "const" or (np.ndim(value) > 1 and value.size > _SHARED)


def _free_names(function: Any) -> Iterator[str]:
    taken = {*function.inputs, *(o.name for op in function.operations for o in op.outputs)}
    taken |= {op.name for op in function.operations}
    taken = {re.sub(r"\W", "_", name) for name in taken}  # as coremltools writes them
    return (name for i in count() if (name := f"c{i}") not in taken)


def _key(var: Var) -> Any:
    """What two constants have in common if one can stand for the other; None for large ones."""
    value = var.val
    if value is None or isinstance(value, list | tuple):
        return None
    array = np.asarray(value)
    if array.size > _SHARED or any(op.op_type == "classify" for op in var.child_ops):
        return None
    return str(var.sym_type), array.dtype.str, array.shape, array.tobytes()
