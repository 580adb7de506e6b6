"""Record what an MLX function computes, primitive by primitive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ondevice import kernels

from .graph import Array, Graph, Node, Value


def trace(model: nn.Module, *inputs: mx.array, fn: Callable[..., Any] | None = None) -> Graph:
    """Record the primitives that ``model(*inputs)`` runs, in float32.

    ``fn(*inputs)``, if given, is recorded instead: anything that calls ``model``. Parameters
    enter the traced function by keyword, so that MLX reports them by name. Tracing on the
    CPU stream gives the same graph on every machine: fast kernels such as
    ``mx.fast.layer_norm`` are recorded as the primitives they stand for. Raises ValueError
    for a model in training mode.
    """
    if model.training:
        raise ValueError("trace a model in eval mode: call model.eval() first")
    call = fn or model
    params: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    named = {k: _float32(v) for k, v in params.items()}

    def forward(*xs: mx.array, **arrays: mx.array) -> Any:
        model.update(tree_unflatten(list(arrays.items())))
        return call(*xs)

    try:
        return trace_function(forward, *map(_float32, inputs), **named)
    finally:  # tracing leaves placeholders in the module
        model.update(tree_unflatten(list(params.items())))


def trace_function(fn: Callable[..., Any], /, *inputs: mx.array, **params: mx.array) -> Graph:
    """Record the primitives of ``fn(*inputs, **params)``."""
    mx.eval(params)  # a lazy parameter would be recorded as how it is made
    records: list[dict[str, Any]] = []
    with mx.stream(mx.cpu), kernels.plain():
        mx.export_function(records.append, fn, inputs, params)
    return _graph(records, params).check()


def _float32(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def _graph(records: list[dict[str, Any]], params: dict[str, mx.array]) -> Graph:
    by_type: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_type.setdefault(record["type"], []).append(record)
    [inputs], [keywords], [outputs] = (
        by_type[key] for key in ("inputs", "keyword_inputs", "outputs")
    )
    paths = {id_: path for path, id_ in keywords["keywords"]}

    def value(id_: str, shape: list[int], dtype: mx.Dtype) -> Value:
        return Value(paths.get(id_, id_), tuple(shape), str(dtype).removeprefix("mlx.core."))

    literals = {k: v for r in by_type.get("constants", []) for k, v in r["constants"]}
    constants = {path: params[path] for path in paths.values()} | literals
    return Graph(
        inputs=tuple(value(*v) for v in inputs["inputs"] if v[0] not in paths),
        outputs=tuple(paths.get(name, name) for name, *_ in outputs["outputs"]),
        constants={k: to_numpy(v) for k, v in constants.items()},
        nodes=tuple(
            Node(
                op=r["name"],
                inputs=tuple(paths.get(id_, id_) for id_, *_ in r["inputs"]),
                outputs=tuple(value(*v) for v in r["outputs"]),
                args=_frozen(r["arguments"]),
            )
            for r in by_type.get("primitive", [])
        ),
    )


def to_numpy(array: mx.array) -> Array:
    """The array in numpy, without a copy where MLX allows it; bfloat16 as float32."""
    found = np.asarray(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)
    found.flags.writeable = False  # it is the model's own
    return found


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
