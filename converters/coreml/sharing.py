"""What a package need not repeat: strides and paddings, and 64 bytes around each vector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from coremltools.converters.mil.mil import Program, Var

_LARGEST = 9  # elements; anything larger lies in the weight file, under its own name


_INLINE = 1024  # elements of a vector that is kept beside the operations


@contextmanager
def short_vectors_inline() -> Iterator[None]:
    """Let coremltools write biases, scales and tables into the specification.

    It puts all floats and bytes of ten elements or more into the weight file, each behind a
    header of 64 bytes and at a multiple of 64, with a reference of 50 more. That is as much
    as a vector of 80 half-precision numbers takes. Integers it writes as here.
    """
    from coremltools.converters.mil.backend.mil import load

    original = load.should_use_weight_file

    def should(value: Any, *rest: Any) -> bool:
        small = isinstance(value, np.ndarray) and value.size <= _INLINE
        return original(value, *rest) and not (small and value.dtype.kind == "f")

    with patch.object(load, "should_use_weight_file", should):
        yield


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
                if kept is op.outputs[0]:
                    kept.name = kept.op.name = f"c{len(first) - 1}"
                elif op.outputs[0] not in function.outputs:
                    function.replace_uses_of_var_after_op(
                        anchor_op=op, old_var=op.outputs[0], new_var=kept
                    )
                    function.remove_ops([op])
    return program


def _key(var: Var) -> Any:
    """What two constants have in common if one can stand for the other; None for large ones."""
    value = var.val
    if value is None or isinstance(value, list | tuple):
        return None
    array = np.asarray(value)
    if array.size > _LARGEST or any(op.op_type == "classify" for op in var.child_ops):
        return None
    return str(var.sym_type), array.dtype.str, array.shape, array.tobytes()
