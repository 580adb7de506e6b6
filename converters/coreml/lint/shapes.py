"""Rules about shapes and types."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..stored import StoredFunction, StoredOp
from .rules import complain, ints, rule, tensors


@rule("error", "A2 A3 M")
def rank_above_five(op: StoredOp, f: StoredFunction) -> str | None:
    """Core ML refuses tensors of more than five axes: merge axes."""
    rank = max((len(shape) for _, shape in tensors(op, f)), default=0)
    return complain(rank > 5, f"rank {rank}")


@rule("warning", "A2 T1")
def rank_five(op: StoredOp, f: StoredFunction) -> str | None:
    """Five axes are allowed, but matmul and conv take four: keep to four."""
    return complain(any(len(shape) == 5 for _, shape in tensors(op, f)), "rank 5")


@rule("warning", "A3 A4")
def flexible_shape(op: StoredOp, f: StoredFunction) -> str | None:
    """Flexible shapes keep a model off the Neural Engine: fix or enumerate them."""
    return complain(any(-1 in shape for _, shape in tensors(op, f)), "flexible shape")


@rule("warning", "A3 T1")
def float32_operation(op: StoredOp, f: StoredFunction) -> str | None:
    """The Neural Engine computes in float16; in a float16 program, find what forces this."""
    types = {dtype for dtype, _ in tensors(op, f)}
    mixed = any(t.dtype == "fp16" for t in f.types.values())
    return complain(mixed and "fp32" in types and op.type != "cast", f"{op.type} in float32")


@rule("warning", "A3 M")
def float32_input_or_output(op: StoredOp, f: StoredFunction) -> str | None:
    """A float32 input or output costs a cast on the CPU: declare it float16."""
    if op.type != "cast":
        return None
    given = any(name not in f.producers for name in op.inputs.get("x", ()))
    taken = not any(name in f.readers for name in op.outputs)
    return complain(given or taken, "of an input" if given else "to an output")


@rule("warning", "A3 T1")
def integer_arithmetic(op: StoredOp, f: StoredFunction) -> str | None:
    """Whole numbers are computed on the CPU: use float16, or constants."""
    whole = any(dtype.startswith(("int32", "int64")) for dtype, _ in tensors(op, f))
    return complain(whole and op.type in {"add", "sub", "mul", "real_div"}, op.type)


@rule("error", "T1")
def dimension_too_large(op: StoredOp, f: StoredFunction) -> str | None:
    """The engine's limits are 16384 for height and width and 65536 channels."""
    for _, shape in tensors(op, f):
        if len(shape) == 4 and (max(shape[2:]) > 16384 or shape[1] > 65536):
            return f"shape {list(shape)}"
    return None


@rule("warning", "A1 A3")
def last_axis_of_one(op: StoredOp, f: StoredFunction) -> str | None:
    """The last axis is padded to 64 bytes, one value to 32: give it the longest axis."""
    for _, shape in tensors(op, f):
        if len(shape) == 4 and shape[-1] == 1 < shape[-2]:
            return f"shape {list(shape)}"
    return None


@rule("warning", "M A3")
def constant_beyond_float16(op: StoredOp, f: StoredFunction) -> str | None:
    """65504 is float16's end: mask with -4e4 instead of -inf, rescale the rest."""
    for name in op.reads():
        largest = _largest(f.values.get(name))
        if largest > 65504:
            return f"{name} reaches {largest:g}"
    return None


_SUMS = frozenset({"reduce_sum", "reduce_sum_square", "reduce_l1_norm", "reduce_l2_norm"})


def _largest(value: Any) -> float:
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return float(np.abs(value).max()) if is_float and value.size else 0.0


@rule("warning", "T2 M")
def sum_of_many(op: StoredOp, f: StoredFunction) -> str | None:
    """A float16 sum of a thousand values overflows when they reach 64: take the mean."""
    x = f.type_of(op, "x") if op.type in _SUMS else None
    if x is None or x.dtype != "fp16":
        return None
    axes = ints(f.value(op, "axes")) or range(len(x.shape))
    count = math.prod(x.shape[axis] for axis in axes)
    return complain(count >= 1024, f"{op.type} of {count}")
