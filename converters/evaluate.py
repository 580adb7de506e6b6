"""Run a graph with MLX: to fold constants, to measure ranges, to check that a pass is honest.

One function per primitive, called as ``fn(*inputs, *args)`` with MLX's own argument order,
or with the order that the raising pass documents. A result of the wrong shape (a Reshape
to -1, say) is the caller's to know: the node has the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice import kernels

from .graph import Array, Graph, Node, Value

Fn = Callable[..., Any]

_REDUCE: tuple[Fn, ...] = (mx.all, mx.any, mx.sum, mx.prod, mx.min, mx.max, mx.mean)
_SCAN: tuple[Fn, ...] = (mx.cummax, mx.cummin, mx.cumsum, mx.cumprod, mx.logcumsumexp)
_POOL = {"max": mx.max, "mean": mx.mean, "sum": mx.sum}


def _slice(x: mx.array, start: Any, stop: Any, step: Any) -> mx.array:
    return x[tuple(map(slice, start, stop, step))]


def _pad(x: mx.array, value: mx.array, axes: Any, low: Any, high: Any) -> mx.array:
    widths = [(0, 0)] * x.ndim
    for axis, lo, hi in zip(axes, low, high, strict=True):
        widths[axis] = (lo, hi)
    return mx.pad(x, widths, constant_values=value)


def _gather(x: mx.array, *rest: Any) -> mx.array:
    *indices, axes, sizes = rest
    grid = indices[0].shape
    rest_axes = [axis for axis in range(x.ndim) if axis not in axes]
    return x.transpose(*axes, *rest_axes)[tuple(indices)].reshape(*grid, *sizes)


def _convolution(x: mx.array, w: mx.array, *rest: Any) -> mx.array:
    *bias, stride, low, high, dilation, input_dilation, groups, flip = rest
    if x.ndim == 4 and low == high and not flip and set(input_dilation) == {1}:
        y = kernels.conv2d(x, w, tuple(stride), tuple(low), tuple(dilation), groups)
    else:
        y = mx.conv_general(
            x, w, stride, (list(low), list(high)), dilation, input_dilation, groups, flip
        )
    return y + bias[0] if bias else y


def _linear(x: mx.array, w: mx.array, *bias: mx.array) -> mx.array:
    return x @ w.T + bias[0] if bias else x @ w.T


def _attention(q: mx.array, k: mx.array, v: mx.array, *mask: mx.array) -> mx.array:
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    for seen in mask:
        hides = seen.dtype == mx.bool_
        scores = mx.where(seen, scores, -mx.inf) if hides else scores + seen
    return mx.softmax(scores, axis=-1) @ v


def _layer_norm(x: mx.array, *rest: Any) -> mx.array:
    *affine, axes, eps = rest
    mean = x.mean(axes, keepdims=True)
    y = (x - mean) * mx.rsqrt((x - mean).square().mean(axes, keepdims=True) + eps)
    return y * affine[0] + affine[1] if affine else y


def _pool(x: mx.array, kind: str, kernel: Any, stride: Any, low: Any, high: Any) -> mx.array:
    fill = -mx.inf if kind == "max" else 0
    x = mx.pad(x, [(0, 0), *zip(low, high, strict=True), (0, 0)], constant_values=fill)
    B, H, W, C = x.shape
    (kh, kw), (sh, sw) = kernel, stride
    shape = (B, (H - kh) // sh + 1, (W - kw) // sw + 1, kh, kw, C)
    windows = mx.as_strided(x, shape, (H * W * C, sh * W * C, sw * C, W * C, C, 1))
    return _POOL[kind](windows, axis=(3, 4))


def _resize(x: mx.array, scale: Any, mode: Any) -> mx.array:
    return nn.Upsample(tuple(map(float, scale)), mode)(x)


def _reduce(x: mx.array, kind: int, axes: Any, keep: bool = True) -> mx.array:
    return _REDUCE[kind](x, axis=axes, keepdims=keep)


def _reshaped(x: mx.array, node: Node) -> mx.array:
    return x.reshape(node.output.shape)


_PRIMITIVES: dict[str, Fn] = {
    "Abs": mx.abs,
    "Add": mx.add,
    "AddMM": lambda a, b, c, alpha, beta: alpha * (a @ b) + beta * c,
    "Affine": lambda x, scale, shift: x * scale + shift,
    "ArgPartition": mx.argpartition,
    "ArgSort": mx.argsort,
    "Attention": _attention,
    "ArgReduce": lambda x, kind, axis: (mx.argmin, mx.argmax)[kind](
        x, axis=axis, keepdims=True
    ),
    "AsStrided": mx.as_strided,
    "AsType": lambda x, dtype: x.astype(dtype),
    "Ceil": mx.ceil,
    "Concatenate": lambda *xs: mx.concatenate(list(xs[:-1]), axis=xs[-1]),
    "Convolution": _convolution,
    "Cos": mx.cos,
    "Divide": mx.divide,
    "Equal": lambda a, b, *_: mx.equal(a, b),
    "Erf": mx.erf,
    "ErfInv": mx.erfinv,
    "Exp": mx.exp,
    "Expm1": mx.expm1,
    "Floor": mx.floor,
    "Full": lambda x: x,
    "Gather": _gather,
    "GatherAxis": lambda x, index, axis: mx.take_along_axis(x, index, axis),
    "Gelu": kernels.gelu,
    "GeluSigmoid": nn.gelu_fast_approx,
    "GeluTanh": nn.gelu_approx,
    "Greater": mx.greater,
    "GreaterEqual": mx.greater_equal,
    "HardSwish": nn.hardswish,
    "LayerNorm": _layer_norm,
    "LeakyRelu": nn.leaky_relu,
    "Less": mx.less,
    "LessEqual": mx.less_equal,
    "Linear": _linear,
    "Log": lambda x, base: (mx.log2, mx.log10, mx.log)[base](x),
    "Log1p": mx.log1p,
    "LogAddExp": mx.logaddexp,
    "LogSumExp": lambda x: mx.logsumexp(x, axis=-1, keepdims=True),
    "LogicalAnd": mx.logical_and,
    "LogicalNot": mx.logical_not,
    "LogicalOr": mx.logical_or,
    "Matmul": mx.matmul,
    "Maximum": mx.maximum,
    "Minimum": mx.minimum,
    "Multiply": mx.multiply,
    "Negative": mx.negative,
    "NotEqual": mx.not_equal,
    "Pad": _pad,
    "Partition": mx.partition,
    "Pool": _pool,
    "Power": mx.power,
    "Reduce": _reduce,
    "Relu": kernels.relu,
    "Relu6": nn.relu6,
    "Remainder": mx.remainder,
    "Resize": _resize,
    "Round": mx.round,
    "Scan": lambda x, kind, axis, reverse, inclusive: _SCAN[kind](
        x, axis=axis, reverse=reverse, inclusive=inclusive
    ),
    "Select": mx.where,
    "Sigmoid": mx.sigmoid,
    "Sign": mx.sign,
    "Silu": nn.silu,
    "Sin": mx.sin,
    "Slice": _slice,
    "Softmax": lambda x, *_: kernels.softmax(x),
    "Sort": mx.sort,
    "Split": lambda x, indices, axis: mx.split(x, list(indices), axis=axis),
    "Sqrt": lambda x, reciprocal: mx.rsqrt(x) if reciprocal else mx.sqrt(x),
    "Square": mx.square,
    "Subtract": mx.subtract,
    "Tan": mx.tan,
    "Tanh": mx.tanh,
    "Transpose": lambda x, axes: x.transpose(axes),
}
_BY_SHAPE = frozenset({"Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze"})


def can_evaluate(node: Node) -> bool:
    return node.op in _PRIMITIVES or node.op in _BY_SHAPE | {"Arange", "Broadcast"}


def evaluate_node(node: Node, *inputs: mx.array) -> list[mx.array]:
    """The node's outputs for these inputs."""
    if node.op in _BY_SHAPE:
        return [inputs[0].reshape(node.output.shape)]
    if node.op == "Arange":  # its arguments are floats whatever its type
        start, stop, step = node.args
        return [mx.arange(start, stop, step, dtype=getattr(mx, node.output.dtype))]
    if node.op == "Broadcast":
        return [mx.broadcast_to(inputs[0], node.output.shape)]
    result = _PRIMITIVES[node.op](*inputs, *node.args)
    return list(result) if isinstance(result, list | tuple) else [result]


def evaluate(
    graph: Graph, *inputs: mx.array | Array, keep: Iterable[str] = ()
) -> dict[str, mx.array]:
    """The outputs of a graph still in MLX's layout, and the values named in ``keep``."""
    wanted = {*graph.outputs, *keep}
    found = {name: mx.array(v) for name, v in graph.constants.items() if name in wanted}
    for value, result in _walk(graph, inputs):
        if value.name in wanted:
            found[value.name] = result
    return found


def peaks(graph: Graph, *inputs: mx.array | Array) -> dict[str, float]:
    """The largest absolute value of every floating value, of one run."""
    found: dict[str, mx.array] = {}
    for value, result in _walk(graph, inputs):
        if value not in graph.inputs and mx.issubdtype(result.dtype, mx.floating):
            found[value.name] = mx.abs(result).max()
            mx.eval(found[value.name])  # all at once would hold all values at once
    return {name: float(np.array(peak)) for name, peak in found.items()}


def _walk(graph: Graph, inputs: Iterable[mx.array | Array]) -> Iterator[tuple[Value, mx.array]]:
    """Every value with what it is, inputs first; none is held longer than it is read.

    Nor is a constant: a copy of all weights would be as large as the model.
    """
    env = {v.name: mx.array(x) for v, x in zip(graph.inputs, inputs, strict=True)}
    yield from zip(graph.inputs, env.values(), strict=True)
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    for i, node in enumerate(graph.nodes):
        given = (
            env[name] if name in env else mx.array(graph.constants[name])
            for name in node.inputs
        )
        results = evaluate_node(node, *given)
        yield from zip(node.outputs, results, strict=True)
        env |= {v.name: r for v, r in zip(node.outputs, results, strict=True)}
        for name in node.inputs:
            if last[name] == i:
                env.pop(name, None)


def fold(node: Node, constants: Mapping[str, Array]) -> dict[str, Array]:
    """A node of constants only, as constants."""
    results = evaluate_node(node, *(mx.array(constants[name]) for name in node.inputs))
    return {v.name: np.array(r) for v, r in zip(node.outputs, results, strict=True)}
