"""The table of operations: one entry each, with all that passes and measurements need to know.

An operation is an MLX primitive, called as MLX's trace calls it, or one that a pass made of
several. A back end adds a lowering; nothing else lists operations by name to say what they
are like. ``docs/extending.md`` shows how one is added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice.cpu import blas, kernels

from .resizing import resize, sample
from .shuffling import SHUFFLES

Fn = Callable[..., Any]
# What an operation does, seen from one element of its result: "arithmetic" is made of the
# same element of each operand, "activation" likewise but of one operand and not exact for
# indices, "move" is a copy of an element, "layer" weighs many with constants, "mixture" many
# with each other, and "reduction" goes over axes.
Kind = Literal["arithmetic", "activation", "move", "layer", "mixture", "reduction"]
# What becomes of the result when the operands are divided by a number: it is divided too
# ("linear"), constants can make up for it ("weights"), it does not change ("norm"), it follows
# one factor ("product"), or it is another one ("fixed").
Scale = Literal["linear", "weights", "norm", "product", "fixed"]


@dataclass(frozen=True)
class Op:
    """``evaluate(*inputs, *args)`` gives the outputs; ``args`` names the arguments in order.

    ``layout`` is the rule of the layout pass (a method's name): how the order of the result's
    axes follows from the operands'; "logical" brings them to MLX's own order.
    ``by_output`` operations are called with their output's shape and type as well.
    ``is_gate``: its result lies between zero and one. ``periodic``: it needs the fraction of a
    large operand. ``exact``: which operands stay float32. ``limits``: its result is one of its
    operands. ``steep``: a small operand has a large result, which is the "end" of that, or the
    operand of a product ("through").
    """

    name: str
    evaluate: Fn | None
    args: tuple[str, ...] = ()
    kind: Kind = "mixture"
    layout: str = "logical"
    scale: Scale = "fixed"
    commutes: bool = False
    by_output: bool = False
    is_gate: bool = False
    periodic: bool = False
    limits: bool = False
    exact: tuple[int, ...] = ()
    steep: Literal["", "through", "end"] = ""


# -- how MLX computes what has no function of that name


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


def _product(a: mx.array, b: mx.array) -> mx.array:
    """A matrix product; by numpy where MLX would take forty times as long."""
    if not (kernels.is_plain_cpu() and blas.is_slow()) or a.dtype != mx.float32:
        return a @ b
    return mx.array(np.asarray(a) @ np.asarray(b))


def _linear(x: mx.array, w: mx.array, *bias: mx.array) -> mx.array:
    y = _product(x, w.T)
    return y + bias[0] if bias else y


def _attention(q: mx.array, k: mx.array, v: mx.array, *mask: mx.array) -> mx.array:
    scores = _product(q, k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5
    for seen in mask:
        hides = seen.dtype == mx.bool_
        scores = mx.where(seen, scores, -mx.inf) if hides else scores + seen
    return _product(mx.softmax(scores, axis=-1), v)


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
    return REDUCTIONS[kind](windows, axis=(3, 4))


# What MLX calls by a number is called by its name here: in MLX's order.
REDUCTIONS: dict[str, Fn] = {
    "all": mx.all, "any": mx.any, "sum": mx.sum, "prod": mx.prod,
    "min": mx.min, "max": mx.max, "mean": mx.mean,
}  # fmt: skip
SCANS: dict[str, Fn] = {
    "max": mx.cummax, "min": mx.cummin, "sum": mx.cumsum, "prod": mx.cumprod,
    "logaddexp": mx.logcumsumexp,
}  # fmt: skip
ARG_REDUCTIONS: dict[str, Fn] = {"min": mx.argmin, "max": mx.argmax}
LINEAR_REDUCTIONS = frozenset({"sum", "min", "max", "mean"})
LOGARITHMS: dict[str, Fn] = {"2": mx.log2, "10": mx.log10, "e": mx.log}


def _reshaped(x: mx.array, *rest: Any) -> mx.array:
    return x.reshape(rest[-1].shape)


def _broadcast(x: mx.array, *rest: Any) -> mx.array:
    return mx.broadcast_to(x, rest[-1].shape)


def _arithmetic(name: str, fn: Fn, scale: Scale = "fixed", commutes: bool = False) -> Op:
    return Op(name, fn, (), "arithmetic", "elementwise", scale, commutes)


def _unary(name: str, fn: Fn, scale: Scale = "fixed", kind: Kind = "activation") -> Op:
    return Op(name, fn, (), kind, "unary", scale)


def _reshape(name: str) -> Op:
    """MLX's spellings of a Reshape carry arguments of their own; the output says it all."""
    return Op(name, _reshaped, ("shape",), "move", "reshape", "linear", by_output=True)


_CONVOLUTION = ("stride", "low", "high", "dilation", "input_dilation", "groups", "flip")
_POOL = ("kind", "kernel", "stride", "low", "high")
_CONV = ("stride", "low", "high", "dilation", "groups")

_TABLE = (
    # arithmetic on elements, with broadcasting
    _arithmetic("Add", mx.add, "linear", commutes=True),
    _arithmetic("Subtract", mx.subtract, "linear"),
    _arithmetic("Multiply", mx.multiply, "product", commutes=True),
    replace(_arithmetic("Divide", mx.divide), steep="end"),
    _arithmetic("FloorDivide", mx.floor_divide),
    _arithmetic("Remainder", mx.remainder),
    replace(_arithmetic("Power", mx.power), steep="through"),
    replace(_arithmetic("Maximum", mx.maximum, "linear", commutes=True), limits=True),
    replace(_arithmetic("Minimum", mx.minimum, "linear", commutes=True), limits=True),
    _arithmetic("Select", mx.where),
    _arithmetic("Equal", lambda a, b, *_: mx.equal(a, b)),
    _arithmetic("NotEqual", mx.not_equal),
    _arithmetic("Less", mx.less),
    _arithmetic("LessEqual", mx.less_equal),
    _arithmetic("Greater", mx.greater),
    _arithmetic("GreaterEqual", mx.greater_equal),
    _arithmetic("LogicalAnd", mx.logical_and),
    _arithmetic("LogicalOr", mx.logical_or),
    _arithmetic("LogicalXor", mx.not_equal),
    _unary("Abs", mx.abs, "linear", "arithmetic"),
    _unary("Ceil", mx.ceil, kind="arithmetic"),
    _unary("Floor", mx.floor, kind="arithmetic"),
    _unary("LogicalNot", mx.logical_not, kind="arithmetic"),
    _unary("Negative", mx.negative, "linear", "arithmetic"),
    _unary("Relu", kernels.relu, "linear", "arithmetic"),
    _unary("Relu6", nn.relu6, kind="arithmetic"),
    _unary("Round", mx.round, kind="arithmetic"),
    _unary("Square", mx.square, kind="arithmetic"),
    Op(
        "Affine",
        lambda x, scale, shift: x * scale + shift,
        kind="arithmetic",
        layout="affine",
        scale="weights",
    ),
    # functions of one element
    Op("AsType", lambda x, dtype: x.astype(dtype), ("dtype",), "activation", "unary"),
    replace(_unary("Cos", mx.cos), periodic=True),
    _unary("Erf", mx.erf),
    _unary("ErfInv", mx.erfinv),
    _unary("Exp", mx.exp),
    _unary("Expm1", mx.expm1),
    _unary("Gelu", kernels.gelu),
    _unary("GeluSigmoid", nn.gelu_fast_approx),
    _unary("GeluTanh", nn.gelu_approx),
    _unary("HardSwish", nn.hardswish),
    Op("LeakyRelu", nn.leaky_relu, ("slope",), "activation", "unary", "linear"),
    Op(
        "Log",
        lambda x, base: LOGARITHMS[base](x),
        ("base",),
        "activation",
        "unary",
        steep="end",
    ),
    _unary("Log1p", mx.log1p),
    Op("LogAddExp", mx.logaddexp, kind="activation"),
    Op("Sigmoid", mx.sigmoid, (), "activation", "unary", is_gate=True),
    _unary("Sign", mx.sign),
    _unary("Silu", nn.silu),
    replace(_unary("Sin", mx.sin), periodic=True),
    Op(
        "Sqrt",
        lambda x, reciprocal: mx.rsqrt(x) if reciprocal else mx.sqrt(x),
        ("reciprocal",),
        "activation",
        "unary",
        steep="through",
    ),
    replace(_unary("Tan", mx.tan), periodic=True),
    _unary("Tanh", mx.tanh),
    # what only moves elements
    Op("AsStrided", mx.as_strided, ("shape", "strides", "offset"), "move"),
    Op("Broadcast", _broadcast, ("shape",), "move", scale="linear", by_output=True),
    Op(
        "Concatenate",
        lambda *xs: mx.concatenate(list(xs[:-1]), axis=xs[-1]),
        ("axis",),
        "move",
        "concatenate",
        "linear",
    ),
    Op("Full", lambda x, *_: x, (), "move"),
    Op("Gather", _gather, ("axes", "sizes"), "reduction"),
    Op("GatherAxis", lambda x, i, axis: mx.take_along_axis(x, i, axis), ("axis",), "reduction"),
    Op("Take", lambda x, i, axis: mx.take(x, i, axis), ("axis",), "reduction", "take"),
    Op("Pad", _pad, ("axes", "low", "high"), "move", "pad", "linear"),
    *map(_reshape, ("Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze")),
    Op("Slice", _slice, ("start", "stop", "step"), "move", "slice", "linear"),
    Op(
        "Split",
        lambda x, indices, axis: mx.split(x, list(indices), axis=axis),
        ("indices", "axis"),
        "move",
        "split",
        "linear",
    ),
    Op(
        "Transpose", lambda x, axes: x.transpose(axes), ("axes",), "move", "transpose", "linear"
    ),
    *(Op(name, fn, ("factor",), "move", "image", "linear") for name, fn in SHUFFLES.items()),
    # layers: products with constants
    Op("Convolution", _convolution, _CONVOLUTION, "layer", "convolution", "weights"),
    Op("Linear", _linear, (), "layer", "linear", "weights"),
    # sums of products, and what goes over axes
    Op(
        "AddMM",
        lambda a, b, c, alpha, beta: alpha * _product(a, b) + beta * c,
        ("alpha", "beta"),
    ),
    Op("Attention", _attention),
    Op("Matmul", _product, ("transpose_x", "transpose_y"), "mixture", "matmul"),
    Op("LayerNorm", _layer_norm, ("axes", "eps"), "mixture", "layer_norm", "norm"),
    Op(
        "Pool",
        _pool,
        ("kind", "kernel", "stride", "low", "high"),
        "reduction",
        "image",
        "linear",
    ),
    Op("Resample", sample, ("padding",), "reduction", "resample", exact=(1,)),
    Op("Resize", resize, ("size", "mode"), "reduction", "image", "linear"),
    Op("Softmax", kernels.softmax, ("axis",), "mixture", "softmax", is_gate=True),
    Op(
        "Reduce",
        lambda x, kind, axes, keep=True: REDUCTIONS[kind](x, axis=axes, keepdims=keep),
        ("kind", "axes", "keep"),
        "reduction",
        "reduce",
    ),
    Op(
        "ArgReduce",
        lambda x, kind, axis: ARG_REDUCTIONS[kind](x, axis=axis, keepdims=True),
        ("kind", "axis"),
        "reduction",
    ),
    Op("LogSumExp", lambda x: mx.logsumexp(x, axis=-1, keepdims=True), (), "reduction"),
    Op(
        "Scan",
        lambda x, kind, axis, reverse, inclusive: SCANS[kind](
            x, axis=axis, reverse=reverse, inclusive=inclusive
        ),
        ("kind", "axis", "reverse", "inclusive"),
        "reduction",
    ),
    Op("ArgPartition", mx.argpartition, ("kth", "axis"), "reduction"),
    Op("ArgSort", mx.argsort, ("axis",), "reduction"),
    Op("Partition", mx.partition, ("kth", "axis"), "reduction"),
    Op("Sort", mx.sort, ("axis",), "reduction"),
    Op(
        "Arange",
        lambda start, stop, step, out: mx.arange(start, stop, step, getattr(mx, out.dtype)),
        ("start", "stop", "step"),
        by_output=True,
    ),
)
OPS = {op.name: op for op in _TABLE}

# What only a physical graph has: made by the layout pass and by compression, evaluated by none.
# (Its Matmul says which operand lies turned, its Softmax along which axis it goes.)
PHYSICAL = {
    op.name: op
    for op in (
        Op("Conv", None, _CONV, "layer", "convolution", "weights"),
        Op("ConvTranspose", None, _CONV, "layer"),
        Op("Quantize", None, ("scale", "zero_point"), "activation"),
        Op("Dequantize", None, ("scale", "zero_point"), "activation"),
    )
}
ELEMENTWISE = frozenset(op.name for op in _TABLE if op.layout == "elementwise")


def scale_of(node: Any) -> Scale:
    """How the result of a graph's node scales: of a reduction that depends on its kind."""
    if node.op == "Reduce":
        return "linear" if node["kind"] in LINEAR_REDUCTIONS else "fixed"
    return op(node.op).scale


def op(name: str) -> Op:
    """The entry of an operation; of one that has none, an entry that promises nothing."""
    return OPS.get(name) or PHYSICAL.get(name) or Op(name, None)
