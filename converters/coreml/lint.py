"""What a package has that the Neural Engine is said to dislike: one rule, one function.

A rule is static: it can say that an operation is eligible, not where Core ML will place it
(``MLComputePlan`` on a Mac does). Sources:

A1 Apple, "Deploying Transformers on the Apple Neural Engine" and ml-ane-transformers
A2 Apple, "Deploying Attention-Based Vision Transformers …" and ml-vision-transformers-ane
A3 apple/coreai-models, model-authoring/references/neural_engine_rules.md
A4 coremltools' documentation
T1 ane-guide.readthedocs.io (measured on M1)
T2 hollance/neural-engine
T4 ane-book, FluidAudio's profiles, rf-detr#1495
M  measured for this project
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..program import Finding, Severity
from .stored import StoredFunction, StoredOp

Check = Callable[[StoredOp, StoredFunction], str | None]


class Rule(NamedTuple):
    name: str
    severity: Severity
    source: str
    check: Check

    @property
    def advice(self) -> str:
        return (self.check.__doc__ or "").strip()


RULES: list[Rule] = []
_EXAMPLES = 3


def rule(severity: Severity, source: str) -> Callable[[Check], Check]:
    """Register a check of one operation: its complaint, or None."""

    def register(check: Check) -> Check:
        RULES.append(Rule(check.__name__.replace("_", "-"), severity, source, check))
        return check

    return register


def lint(function: StoredFunction) -> list[Finding]:
    """The rules that the function breaks, errors first."""
    order = ("error", "warning", "info")
    findings = [f for each in RULES if (f := _apply(each, function))]
    return sorted(findings, key=lambda f: order.index(f.severity))


def _apply(each: Rule, function: StoredFunction) -> Finding | None:
    complaints = [
        f"{op.name}: {complaint}"
        for op in function.operations
        if (complaint := each.check(op, function))
    ]
    if not complaints:
        return None
    examples = tuple(complaints[:_EXAMPLES])
    return Finding(
        each.name, each.severity, each.source, each.advice, len(complaints), examples
    )


def _tensors(op: StoredOp, f: StoredFunction) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name in op.outputs:
        if name in f.types:
            yield f.types[name]


def _ints(value: Any) -> list[int]:
    return [] if value is None else [int(v) for v in np.atleast_1d(value)]


def _complain(condition: Any, text: str) -> str | None:
    return text if condition else None


# Shapes and types


@rule("error", "A2 A3 M")
def rank_above_five(op: StoredOp, f: StoredFunction) -> str | None:
    """Core ML refuses tensors of more than five axes: merge axes."""
    rank = max((len(shape) for _, shape in _tensors(op, f)), default=0)
    return _complain(rank > 5, f"rank {rank}")


@rule("warning", "A2 T1")
def rank_five(op: StoredOp, f: StoredFunction) -> str | None:
    """Five axes are allowed, but matmul and conv take four: keep to four."""
    return _complain(any(len(shape) == 5 for _, shape in _tensors(op, f)), "rank 5")


@rule("warning", "A3 A4")
def flexible_shape(op: StoredOp, f: StoredFunction) -> str | None:
    """Flexible shapes keep a model off the Neural Engine: fix or enumerate them."""
    return _complain(any(-1 in shape for _, shape in _tensors(op, f)), "flexible shape")


@rule("warning", "A3 T1")
def float32_operation(op: StoredOp, f: StoredFunction) -> str | None:
    """The Neural Engine computes in float16; in a float16 program, find what forces this."""
    types = {dtype for dtype, _ in _tensors(op, f)}
    mixed = any(t.dtype == "fp16" for t in f.types.values())
    return _complain(mixed and "fp32" in types and op.type != "cast", f"{op.type} in float32")


@rule("warning", "A3 M")
def float32_at_the_border(op: StoredOp, f: StoredFunction) -> str | None:
    """A float32 input or output costs a cast on the CPU: declare it float16."""
    if op.type != "cast":
        return None
    given = any(name not in f.producers for name in op.inputs.get("x", ()))
    taken = not any(name in f.readers for name in op.outputs)
    return _complain(given or taken, "of an input" if given else "to an output")


@rule("warning", "A3 T1")
def integer_arithmetic(op: StoredOp, f: StoredFunction) -> str | None:
    """Whole numbers are computed on the CPU: use float16, or constants."""
    whole = any(dtype.startswith(("int32", "int64")) for dtype, _ in _tensors(op, f))
    return _complain(whole and op.type in {"add", "sub", "mul", "real_div"}, op.type)


@rule("error", "T1")
def dimension_too_large(op: StoredOp, f: StoredFunction) -> str | None:
    """The engine's limits are 16384 for height and width and 65536 channels."""
    for _, shape in _tensors(op, f):
        if len(shape) == 4 and (max(shape[2:]) > 16384 or shape[1] > 65536):
            return f"shape {list(shape)}"
    return None


@rule("warning", "A1 A3")
def last_axis_of_one(op: StoredOp, f: StoredFunction) -> str | None:
    """The last axis is padded to 64 bytes, one value to 32: give it the longest axis."""
    for _, shape in _tensors(op, f):
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
    axes = _ints(f.value(op, "axes")) or range(len(x.shape))
    count = math.prod(x.shape[axis] for axis in axes)
    return _complain(count >= 1024, f"{op.type} of {count}")


# Layout


@rule("warning", "A1 A3")
def transpose_left(op: StoredOp, f: StoredFunction) -> str | None:
    """A transpose copies everything: keep images (1, C, H, W) and tokens (1, C, 1, S)."""
    return _complain(op.type == "transpose", f"perm {_ints(f.value(op, 'perm'))}")


@rule("info", "A1 A3")
def linear_as_convolution(op: StoredOp, f: StoredFunction) -> str | None:
    """The engine is a convolution machine: on (1, C, 1, S) make it a 1x1 convolution."""
    shape = getattr(f.type_of(op, "x"), "shape", ())
    if op.type == "linear":
        return _complain(len(shape) > 2, f"linear on {list(shape)}")
    constant = op.type == "matmul" and any(map(f.is_constant, op.inputs.get("y", ())))
    return _complain(constant, "matmul with a constant")


@rule("warning", "T1")
def slice_of_last_axis(op: StoredOp, f: StoredFunction) -> str | None:
    """On M1 and A14 a last-axis slice that starts inside saturates at 4094."""
    begin = _ints(f.value(op, "begin"))
    inside = op.type in {"slice_by_index", "slice_by_size"} and begin and begin[-1] != 0
    return _complain(inside, f"begins at {begin[-1] if begin else 0}")


@rule("info", "T1")
def many_branches(op: StoredOp, f: StoredFunction) -> str | None:
    """Twelve parallel branches and more make compilation slow: join them in steps."""
    count = max((len(names) for names in op.inputs.values()), default=0)
    return _complain(count >= 12, f"joins {count}")


# Operations


_NO_PATH = frozenset(
    "reduce_prod scatter scatter_nd scatter_along_axis gru lstm rnn one_hot non_zero band_part "
    "reverse_sequence shape sliding_windows mod logical_and logical_or logical_xor acos asin "
    "atan atanh sinh cosh tan random_normal random_uniform random_bernoulli "
    "random_categorical while_loop cond custom_layer topk".split()
)


@rule("error", "T1 T2 T4")
def no_neural_engine_path(op: StoredOp, f: StoredFunction) -> str | None:
    """No way through the Neural Engine is known for these: the graph is cut there."""
    return _complain(op.type in _NO_PATH, op.type)


@rule("warning", "A3 T4")
def fused_attention(op: StoredOp, f: StoredFunction) -> str | None:
    """Apple names no fused attention on the engine: matmul, softmax, matmul is safer."""
    return _complain(op.type == "scaled_dot_product_attention", "fused attention")


@rule("info", "A1 A2")
def heads_side_by_side(op: StoredOp, f: StoredFunction) -> str | None:
    """Heads one by one stay in the engine's cache: attention "per-head" splits them."""
    x = f.type_of(op, "x") if op.type == "softmax" else None
    maker = next((f.producers.get(n) for n in op.inputs.get("x", ())), None)
    together = x and len(x.shape) == 4 and x.shape[1] > 1 and maker and maker.type == "matmul"
    return _complain(together, f"{x.shape[1] if together and x else 1} heads")


@rule("warning", "A3")
def decomposed_normalization(op: StoredOp, f: StoredFunction) -> str | None:
    """Written out in parts, a layer norm overflows float16 sooner: use layer_norm."""
    if op.type not in {"rsqrt", "sqrt", "pow"}:
        return None
    before = [f.producers[n] for n in op.inputs.get("x", ()) if n in f.producers]
    before += [f.producers[n] for b in before for n in b.reads() if n in f.producers]
    return _complain(any(b.type == "reduce_mean" for b in before), f"{op.type} of a mean")


@rule("error", "T1 A3")
def kernel_too_wide(op: StoredOp, f: StoredFunction) -> str | None:
    """Convolutions wider than 13 have no path on older engines: split the kernel."""
    return _kernel(op, f, lambda width: width > 13)


@rule("info", "A3")
def large_kernel(op: StoredOp, f: StoredFunction) -> str | None:
    """Kernels beyond 7 are slow: two smaller ones cost less."""
    return _kernel(op, f, lambda width: 7 < width <= 13)


def _kernel(op: StoredOp, f: StoredFunction, matches: Callable[[int], bool]) -> str | None:
    weight = f.type_of(op, "weight") if op.type == "conv" else None
    spatial = weight.shape[2:] if weight else ()
    return _complain(spatial and matches(max(spatial)), f"kernel {list(spatial)}")


@rule("warning", "T1 A3")
def computed_weight(op: StoredOp, f: StoredFunction) -> str | None:
    """A convolution whose weight is computed at run time is not compiled ahead."""
    names = op.inputs.get("weight", ()) if op.type == "conv" else ()
    return _complain(names and not f.is_constant(names[0]), "weight is not a constant")


@rule("warning", "A3")
def odd_stride(op: StoredOp, f: StoredFunction) -> str | None:
    """Strides are 1, 2, or products of 2 and 3, the same in both directions."""
    strides = _ints(f.value(op, "strides")) if op.type == "conv" else []
    odd = [s for s in strides if s > 2 and not _smooth(s)]
    unequal = len(set(strides)) > 1 and max(strides) > 2
    return _complain(odd or unequal, f"strides {strides}")


def _smooth(n: int) -> bool:
    """A product of twos and threes."""
    for factor in (2, 3):
        while n % factor == 0:
            n //= factor
    return n == 1


@rule("warning", "A3 T1 T2")
def dilated_convolution(op: StoredOp, f: StoredFunction) -> str | None:
    """Dilation is done by rearranging the whole map: keep it small, of factors 2 and 3."""
    dilations = _ints(f.value(op, "dilations")) if op.type == "conv" else []
    return _complain(any(d > 8 or not _smooth(d) for d in dilations), f"{dilations}")


@rule("warning", "A3 T2")
def odd_pool(op: StoredOp, f: StoredFunction) -> str | None:
    """Pools are fast with strides of 2 or 4 and kernels up to 13."""
    if op.type not in {"max_pool", "avg_pool", "l2_pool"}:
        return None
    kernel, strides = _ints(f.value(op, "kernel_sizes")), _ints(f.value(op, "strides"))
    slow = any(k > 13 for k in kernel) or any(s not in (1, 2, 4) for s in strides)
    return _complain(slow, f"kernel {kernel}, strides {strides}")


@rule("warning", "T1")
def odd_padding(op: StoredOp, f: StoredFunction) -> str | None:
    """Only constant padding of height and width stays on every engine."""
    if op.type != "pad":
        return None
    pad, mode = _ints(f.value(op, "pad")), f.value(op, "mode", "constant")
    return _complain(mode != "constant" or any(pad[:-4]), f"{mode} {pad}")


@rule("info", "T1 T2")
def large_upsampling(op: StoredOp, f: StoredFunction) -> str | None:
    """Factors above 2 may leave the engine: double several times."""
    factors = [f.value(op, f"scale_factor_{side}") for side in ("height", "width")]
    largest = max((float(np.max(v)) for v in factors if v is not None), default=1)
    return _complain(op.type.startswith("upsample") and largest > 2, f"factor {largest:g}")


@rule("info", "T1")
def odd_groups(op: StoredOp, f: StoredFunction) -> str | None:
    """Group counts that run well are 1, 2, 4 and one for each channel."""
    x = f.type_of(op, "x") if op.type == "conv" else None
    groups = (_ints(f.value(op, "groups")) or [1])[0]
    return _complain(x and groups not in {1, 2, 4, x.shape[1]}, f"{groups} groups")


@rule("info", "T1")
def channels_not_of_sixteen(op: StoredOp, f: StoredFunction) -> str | None:
    """Channels go in blocks of 16: the rest of a block is wasted."""
    weight = f.type_of(op, "weight") if op.type == "conv" else None
    return _complain(weight and weight.shape[0] % 16, f"{weight.shape[0] if weight else 0} out")


@rule("info", "T1 A1")
def large_operand(op: StoredOp, f: StoredFunction) -> str | None:
    """Values beyond 2 MB leave the engine's memory and are streamed."""
    largest = max((int(np.prod(s)) * 2 for d, s in _tensors(op, f) if d == "fp16"), default=0)
    return _complain(largest > 2 << 20, f"{largest / 2**20:.1f} MB")


@rule("info", "T4")
def small_model(op: StoredOp, f: StoredFunction) -> str | None:
    """Below a million weights Core ML is seen to stay on the CPU, which may be fast enough."""
    if op is not f.operations[0]:  # it is said once, of the whole
        return None
    count = sum(weight.size for weight in f.weights.values())
    return _complain(0 < count < 1_000_000, f"{count:,} weights in all")


# Compression


@rule("warning", "A4 T4")
def weights_per_block(op: StoredOp, f: StoredFunction) -> str | None:
    """Scales per block are for the GPU of a Mac: on the engine use one per channel."""
    formats = [f.weights[n].format for n in op.reads() if n in f.weights]
    blocked = next((text for text in formats if "block" in text), None)
    return _complain(blocked, f"{blocked}")


@rule("warning", "M")
def rounded_twice(op: StoredOp, f: StoredFunction) -> str | None:
    """Eight bits between a convolution and its activation cost accuracy for nothing."""
    if op.type not in {"gelu", "silu", "sigmoid", "relu", "tanh"}:
        return None
    chain = [op]
    for wanted in ("dequantize", "quantize", "conv"):
        first = next((f.producers.get(n) for n in chain[-1].reads()), None)
        if first is None or first.type != wanted:
            return None
        chain.append(first)
    return f"conv, quantize, dequantize, {op.type}"


@rule("warning", "M A4")
def float_among_eight_bits(op: StoredOp, f: StoredFunction) -> str | None:
    """In a W8A8 package this convolution still reads float16: stems are often forgotten."""
    has_bits = any(each.type == "quantize" for each in f.operations)
    source = next((f.producers.get(n) for n in op.inputs.get("x", ())), None)
    exact = source is None or source.type != "dequantize"
    return _complain(op.type == "conv" and has_bits and exact, "float16 input")
