"""Record what an MLX function computes, primitive by primitive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from ondevice.cpu import kernels

from .graph import Array, Graph, Node, Value, computed
from .ops import ARG_REDUCTIONS, LOGARITHMS, REDUCTIONS, SCANS


def trace_function(fn: Callable[..., Any], /, *inputs: mx.array, **params: mx.array) -> Graph:
    """Record the primitives of ``fn(*inputs, **params)``.

    Parameters keep their names; the name of any other value starts with ``%``.
    """
    mx.eval(params)  # a lazy parameter would be recorded as how it is made
    records: list[dict[str, Any]] = []
    with mx.stream(mx.cpu), kernels.plain():
        mx.export_function(records.append, fn, inputs, params)
    return _graph(records, params).check()


def _graph(records: list[dict[str, Any]], params: dict[str, mx.array]) -> Graph:
    by_type: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_type.setdefault(record["type"], []).append(record)
    [inputs], [keywords], [outputs] = (
        by_type[key] for key in ("inputs", "keyword_inputs", "outputs")
    )
    literals = {k: to_numpy(v) for r in by_type.get("constants", []) for k, v in r["constants"]}
    paths = {id_: path for path, id_ in keywords["keywords"]}
    known = paths | _merged(literals)

    def name(id_: str) -> str:  # MLX calls its values A, B, … as a user may call a parameter
        return known.get(id_) or computed(id_)

    def value(id_: str, shape: list[int], dtype: mx.Dtype) -> Value:
        return Value(name(id_), tuple(shape), str(dtype).removeprefix("mlx.core."))

    constants = {path: to_numpy(params[path]) for path in paths.values()}
    return Graph(
        inputs=tuple(value(*v) for v in inputs["inputs"] if v[0] not in paths),
        outputs=tuple(name(id_) for id_, *_ in outputs["outputs"]),
        constants=constants | {name(id_): array for id_, array in literals.items()},
        nodes=tuple(
            Node(
                op=r["name"],
                inputs=tuple(name(id_) for id_, *_ in r["inputs"]),
                outputs=tuple(value(*v) for v in r["outputs"]),
                args=_named(r["name"], _frozen(r["arguments"])),
            )
            for r in by_type.get("primitive", [])
        ),
    )


def _merged(literals: dict[str, Array]) -> dict[str, str]:
    """One name for equal literals."""
    first: dict[Any, str] = {}
    return {
        id_: first.setdefault((a.dtype.str, a.shape, a.tobytes()), computed(id_))
        for id_, a in literals.items()
    }


# Of these MLX gives the first argument as a number; it stands for a name.
_KINDS: dict[str, Sequence[str]] = {
    "ArgReduce": tuple(ARG_REDUCTIONS),
    "BitwiseBinary": ("and", "or", "xor", "left_shift", "right_shift"),
    "Log": tuple(LOGARITHMS),
    "Reduce": tuple(REDUCTIONS),
    "Scan": tuple(SCANS),
}


def _named(op: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if op == "Softmax":  # of the last axis; its argument only says how precise it is
        return ()
    return (_KINDS[op][args[0]], *args[1:]) if op in _KINDS else args


def to_numpy(array: mx.array) -> Array:
    """The array in numpy, without a copy where MLX allows it; bfloat16 as float32."""
    found = np.asarray(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)
    found.flags.writeable = False  # it is the model's own
    return found


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
