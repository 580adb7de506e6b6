"""The table of operations: one entry each, with all that passes and measurements need to know.

An operation is an MLX primitive, called as MLX's trace calls it, or one that a pass made of
several. A back end adds a lowering; nothing else says by name what operations are like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from ondevice.cpu import kernels

from . import evaluators as ev
from .evaluators import (
    ARG_REDUCTIONS as ARG_REDUCTIONS,
    BITWISE as BITWISE,
    LINEAR_REDUCTIONS as LINEAR_REDUCTIONS,
    LOGARITHMS as LOGARITHMS,
    REDUCTIONS as REDUCTIONS,
    SCANS as SCANS,
)
from .resizing import resize, sample
from .shuffling import SHUFFLES

Fn = Callable[..., Any]
# What one element of the result is: "arithmetic" of the same element of each operand,
# "activation" likewise of one operand and not exact for indices, a "move" of an element, a
# "layer" of many weighed with constants, a "mixture" of many, or a "reduction" over axes.
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
    ``is_gate``: its result lies between zero and one. ``magnifies`` what its operand lost to
    rounding: "always", as what needs the fraction of a large operand, or where its result is
    "large". ``exact``: which operands stay float32. ``limits``: its result is one of its
    operands. ``literal``: its constants are written as they are, never compressed. ``picks``:
    each element of its result is one of its first operand's. ``steep``: a small operand has a
    large result, which is the "end" of that, or the operand of a product ("through").
    ``takes``: of what types packages have it; ``same_of``: of which, by NumPy's letters, it
    gives each element as it is.
    ``instead``: why no back end has it, and what to do instead; constants alone are folded.
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
    magnifies: Literal["", "always", "large"] = ""
    limits: bool = False
    exact: tuple[int, ...] = ()
    steep: Literal["", "through", "end"] = ""
    literal: bool = False
    picks: bool = False
    takes: Literal["any", "numbers", "floats"] = "any"
    same_of: str = ""
    instead: str = ""


def _arithmetic(name: str, fn: Fn, scale: Scale = "fixed", commutes: bool = False) -> Op:
    return Op(name, fn, (), "arithmetic", "elementwise", scale, commutes)


def _unary(name: str, fn: Fn, scale: Scale = "fixed", kind: Kind = "activation") -> Op:
    return Op(name, fn, (), kind, "unary", scale)


def _reshape(name: str) -> Op:
    """MLX's spellings of a Reshape carry arguments of their own; the output says it all."""
    return Op(name, ev.reshaped, ("shape",), "move", "reshape", "linear", by_output=True)


def _once(name: str, fn: Fn, args: tuple[str, ...], instead: str) -> Op:
    """What is computed of constants only."""
    return Op(name, fn, args, instead=instead)


_NO_COMPLEX = "no complex numbers go in or out; give real and imaginary parts"
_NO_ALGEBRA = "no decomposition of a matrix that depends on the input; compute it outside"
_NO_BITS = "no integers as bits; use arithmetic"

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
    replace(_arithmetic("Remainder", mx.remainder), magnifies="always"),
    replace(_arithmetic("Power", mx.power), steep="through"),
    replace(_arithmetic("Maximum", mx.maximum, "linear", commutes=True), limits=True),
    replace(_arithmetic("Minimum", mx.minimum, "linear", commutes=True), limits=True),
    _arithmetic("Select", mx.where),
    Op("Equal", ev.equal, ("with_nan",), "arithmetic", "elementwise"),
    _arithmetic("NotEqual", mx.not_equal),
    _arithmetic("Less", mx.less),
    _arithmetic("LessEqual", mx.less_equal),
    _arithmetic("Greater", mx.greater),
    _arithmetic("GreaterEqual", mx.greater_equal),
    _arithmetic("LogicalAnd", mx.logical_and),
    _arithmetic("LogicalOr", mx.logical_or),
    _arithmetic("LogicalXor", mx.not_equal),
    Op("DivMod", mx.divmod, (), "arithmetic"),
    Op(
        "BitwiseBinary",
        lambda x, y, kind: BITWISE[kind](x, y),
        ("kind",),
        "arithmetic",
        "elementwise",
        instead=_NO_BITS,
    ),
    replace(_unary("Abs", mx.abs, "linear", "arithmetic"), same_of="bu"),
    replace(_unary("Ceil", mx.ceil, kind="arithmetic"), same_of="biu"),
    replace(_unary("Floor", mx.floor, kind="arithmetic"), same_of="biu"),
    _unary("LogicalNot", mx.logical_not, kind="arithmetic"),
    _unary("Negative", mx.negative, "linear", "arithmetic"),
    _unary("Relu", kernels.relu, "linear", "arithmetic"),
    _unary("Relu6", nn.relu6, kind="arithmetic"),
    replace(_unary("Round", mx.round, kind="arithmetic"), same_of="biu"),
    replace(_unary("Square", mx.square, kind="arithmetic"), same_of="b"),
    Op(
        "Affine",
        lambda x, scale, shift: x * scale + shift,
        kind="arithmetic",
        layout="affine",
        scale="weights",
        literal=True,
    ),
    # functions of one element
    Op("AsType", lambda x, dtype: x.astype(dtype), ("dtype",), "activation", "unary"),
    _unary("ArcCos", mx.arccos),
    _unary("ArcCosh", mx.arccosh),
    _unary("ArcSin", mx.arcsin),
    _unary("ArcSinh", mx.arcsinh),
    _unary("ArcTan", mx.arctan),
    Op("ArcTan2", mx.arctan2, (), "activation", "elementwise"),
    _unary("ArcTanh", mx.arctanh),
    replace(_unary("Cos", mx.cos), magnifies="always"),
    replace(_unary("Cosh", mx.cosh), magnifies="large"),
    _unary("Erf", mx.erf),
    replace(
        _unary("ErfInv", mx.erfinv),
        instead="no inverse error function; approximate it with logarithms and roots",
    ),
    replace(_unary("Exp", mx.exp), magnifies="large"),
    replace(_unary("Expm1", mx.expm1), magnifies="large"),
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
    replace(_unary("Sign", mx.sign), same_of="b"),
    _unary("Silu", nn.silu),
    replace(_unary("Sin", mx.sin), magnifies="always"),
    Op(
        "Sqrt",
        lambda x, reciprocal: mx.rsqrt(x) if reciprocal else mx.sqrt(x),
        ("reciprocal",),
        "activation",
        "unary",
        steep="through",
    ),
    replace(_unary("Sinh", mx.sinh), magnifies="large"),
    replace(_unary("Tan", mx.tan), magnifies="always"),
    _unary("Tanh", mx.tanh),
    # what only moves elements
    Op("AsStrided", mx.as_strided, ("shape", "strides", "offset"), "move"),
    Op("Broadcast", ev.broadcast, ("shape",), "move", scale="linear", by_output=True),
    Op(
        "Concatenate",
        lambda *xs: mx.concatenate(list(xs[:-1]), axis=xs[-1]),
        ("axis",),
        "move",
        "concatenate",
        "linear",
    ),
    Op("Full", lambda x, *_: x, (), "move"),
    Op("Gather", ev.gather, ("axes", "sizes"), "reduction", picks=True, by_output=True),
    Op(
        "GatherAxis",
        lambda x, i, axis: mx.take_along_axis(x, i, axis),
        ("axis",),
        "reduction",
        picks=True,
    ),
    Op(
        "Take",
        lambda x, i, axis: mx.take(x, i, axis),
        ("axis",),
        "reduction",
        "take",
        picks=True,
        takes="numbers",
    ),
    Op("Pad", ev.pad, ("axes", "low", "high"), "move", "pad", "linear", literal=True),
    Op("EdgePad", ev.edge_pad, ("axes", "low", "high"), "move", "pad", "linear"),
    Op("SliceUpdate", ev.slice_update, ("kind", "start", "stop", "step"), "move"),
    Op("Scatter", ev.scatter, ("kind", "axes"), "reduction"),
    Op("ScatterRows", ev.scatter_rows, ("kind", "axes"), "reduction", takes="numbers"),
    Op("ScatterAxis", ev.scatter_axis, ("kind", "axis"), "reduction", takes="numbers"),
    Op("MaskedScatter", ev.masked_scatter, (), "reduction"),
    Op("DynamicSlice", ev.dynamic_slice, ("axes", "size"), "move"),
    Op(
        "DynamicSliceUpdate",
        lambda x, y, start, axes: mx.slice_update(x, y, start, axes),
        ("axes",),
        "move",
    ),
    *map(_reshape, ("Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze")),
    Op("Slice", ev.slice_, ("start", "stop", "step"), "move", "slice", "linear"),
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
    Op("Convolution", ev.convolution, _CONVOLUTION, "layer", "convolution", "weights"),
    Op("Linear", ev.linear, (), "layer", "linear", "weights"),
    # sums of products, and what goes over axes
    Op(
        "AddMM",
        lambda a, b, c, alpha, beta: alpha * ev.product(a, b) + beta * c,
        ("alpha", "beta"),
    ),
    Op("Attention", ev.attention),
    Op("Matmul", ev.product, ("transpose_x", "transpose_y"), "mixture", "matmul"),
    Op(
        "LayerNorm",
        ev.layer_norm,
        ("axes", "eps"),
        "mixture",
        "layer_norm",
        "norm",
        literal=True,
    ),
    Op(
        "Pool",
        ev.pool,
        ("kind", "kernel", "stride", "low", "high"),
        "reduction",
        "image",
        "linear",
        takes="floats",
    ),
    Op("Resample", sample, ("padding",), "reduction", "resample", exact=(1,)),
    Op("Resize", resize, ("size", "mode"), "reduction", "image", "linear", takes="floats"),
    Op("Softmax", kernels.softmax, ("axis",), "mixture", "softmax", is_gate=True),
    Op(
        "Reduce",
        ev.reduce,
        ("kind", "axes", "keep"),
        "reduction",
        "reduce",
    ),
    Op(
        "ArgReduce",
        lambda x, kind, axis: ARG_REDUCTIONS[kind](x, axis=axis, keepdims=True),
        ("kind", "axis"),
        "reduction",
        "arg_reduce",
        takes="numbers",
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
    Op("ArgPartition", mx.argpartition, ("kth", "axis"), "reduction", takes="numbers"),
    Op("ArgSort", mx.argsort, ("axis",), "reduction", takes="numbers"),
    Op("Partition", mx.partition, ("kth", "axis"), "reduction", takes="numbers"),
    Op("Sort", mx.sort, ("axis",), "reduction", takes="numbers"),
    Op(
        "Arange",
        lambda start, stop, step, out: mx.arange(start, stop, step, getattr(mx, out.dtype)),
        ("start", "stop", "step"),
        by_output=True,
    ),
    # what stands in a package as the constants it gives
    _once(
        "RandomBits", ev.bits, ("shape", "width"), "no random numbers; give them as an input"
    ),
    _once("View", ev.view, ("dtype",), _NO_BITS),
    _once("Real", mx.real, (), _NO_COMPLEX),
    _once("Imag", mx.imag, (), _NO_COMPLEX),
    _once("Conjugate", mx.conjugate, (), _NO_COMPLEX),
    replace(
        _once(
            "FFT",
            ev.fft,
            ("axes", "inverse", "real", "norm"),
            "no Fourier transform; multiply with constant matrices of cosines and sines",
        ),
        by_output=True,
    ),
    _once(
        "Hadamard",
        lambda x, scale: mx.hadamard_transform(x, scale),
        ("scale",),
        "no Hadamard transform; multiply with a constant matrix",
    ),
    _once(
        "SearchSorted",
        lambda x, y, right: mx.searchsorted(x, y, side="right" if right else "left"),
        ("right",),
        "no search; count with (x[..., None] > bounds).sum(-1)",
    ),
    _once("Cholesky", lambda x, upper: mx.linalg.cholesky(x, upper), ("upper",), _NO_ALGEBRA),
    _once(
        "Inverse",
        lambda x, tri, upper: mx.linalg.tri_inv(x, upper) if tri else mx.linalg.inv(x),
        ("triangular", "upper"),
        _NO_ALGEBRA,
    ),
    _once("QRF", mx.linalg.qr, (), _NO_ALGEBRA),
    _once("SVD", lambda x, uv: mx.linalg.svd(x, uv), ("vectors",), _NO_ALGEBRA),
    _once("Eigh", ev.eigh, ("uplo", "vectors"), _NO_ALGEBRA),
    _once("Eig", ev.eig, ("vectors",), _NO_ALGEBRA),
    _once(
        "AffineQuantize",
        ev.quantize,
        ("group_size", "bits", "mode", "dequantize"),
        "no quantization that depends on the input; quantize weights only",
    ),
    _once(
        "QuantizedMatmul",
        ev.quantized_matmul,
        ("group_size", "bits", "mode", "transpose"),
        "no quantized product of weights that depend on the input; dequantize them",
    ),
)
OPS = {op.name: op for op in _TABLE}

# What only a physical graph has, made by the layout pass and by compression.
PHYSICAL = {
    op.name: op
    for op in (
        Op("Conv", None, _CONV, "layer", "convolution", "weights"),
        Op("ConvTranspose", None, _CONV, "layer"),
        Op("Quantize", None, ("scale", "zero_point"), "activation"),
        Op("Dequantize", None, ("scale", "zero_point"), "activation"),
    )
}
# What else a trace may hold, and why there is none.
REFUSED = {
    "BroadcastAxes": "of `mx.vmap`; write the batch's axis out",
    "BlockMaskedMM": "no product of blocks; multiply by the mask and use `@`",
    "CustomKernel": "no kernels of one's own; write it with operations of `mx`, such as "
    "grid_sample with `mx.take`, which becomes one operation",
    "GatherMM": "no product of chosen matrices; take them, then use `@`",
    "GatherQMM": "no product of chosen matrices; dequantize and take them, then use `@`",
    "GatherQQMM": "no product of chosen matrices; dequantize and take them, then use `@`",
    "QQMatmul": "no product of two quantized arrays; dequantize them",
    "GatedDeltaUpdate": "no recurrent update as one operation; write out its steps",
} | dict.fromkeys(("ConvertFP8", "LUF", "SegmentedMM"), "MLX does not hand it over")
ELEMENTWISE = frozenset(op.name for op in _TABLE if op.layout == "elementwise")


def scale_of(node: Any) -> Scale:
    """How the result of a graph's node scales: of a reduction that depends on its kind."""
    if node.op == "Reduce":
        return "linear" if node["kind"] in LINEAR_REDUCTIONS else "fixed"
    return op(node.op).scale


_LARGE = 64.0  # whose exponent in half precision is wrong by a thousandth


def magnifies(node: Any, peak: float) -> bool:
    """Whether a graph's node makes much of what its operand lost to rounding.

    ``peak`` is the largest absolute value of its result. The product of many numbers has the
    relative errors of all.
    """
    if node.op in {"Reduce", "Scan"}:
        return str(node["kind"]) == "prod"
    found = op(node.op).magnifies
    return found == "always" or (found == "large" and peak > _LARGE)


def op(name: str) -> Op:
    """The entry of an operation; of one that has none, an entry that promises nothing."""
    return OPS.get(name) or PHYSICAL.get(name) or Op(name, None, instead=REFUSED.get(name, ""))
