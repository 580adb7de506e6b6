"""Rules about layout: what moves values instead of computing."""

from __future__ import annotations

from ..stored import StoredFunction, StoredOp
from .rules import complain, ints, rule


@rule("warning", "A1 A3")
def transpose_left(op: StoredOp, f: StoredFunction) -> str | None:
    """A transpose copies everything: keep images (1, C, H, W) and tokens (1, C, 1, S)."""
    return complain(op.type == "transpose", f"perm {ints(f.value(op, 'perm'))}")


@rule("info", "A1 A3")
def linear_as_convolution(op: StoredOp, f: StoredFunction) -> str | None:
    """The engine is a convolution machine: on (1, C, 1, S) make it a 1x1 convolution."""
    shape = getattr(f.type_of(op, "x"), "shape", ())
    if op.type == "linear":
        return complain(len(shape) > 2, f"linear on {list(shape)}")
    constant = op.type == "matmul" and any(map(f.is_constant, op.inputs.get("y", ())))
    return complain(constant, "matmul with a constant")


@rule("warning", "T1")
def slice_of_last_axis(op: StoredOp, f: StoredFunction) -> str | None:
    """On M1 and A14 a last-axis slice that starts inside saturates at 4094."""
    begin = ints(f.value(op, "begin"))
    inside = op.type in {"slice_by_index", "slice_by_size"} and begin and begin[-1] != 0
    return complain(inside, f"begins at {begin[-1] if begin else 0}")


@rule("info", "T1")
def many_branches(op: StoredOp, f: StoredFunction) -> str | None:
    """Twelve parallel branches and more make compilation slow: join them in steps."""
    count = max((len(names) for names in op.inputs.values()), default=0)
    return complain(count >= 12, f"joins {count}")
