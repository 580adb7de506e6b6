"""Rules about operations and their sizes."""

from __future__ import annotations

import numpy as np

from ..stored import StoredFunction, StoredOp
from .rules import complain, rule, tensors

_NO_PATH = frozenset(
    "reduce_prod scatter scatter_nd scatter_along_axis gru lstm rnn one_hot non_zero band_part "
    "reverse_sequence shape sliding_windows mod logical_and logical_or logical_xor acos asin "
    "atan atanh sinh cosh tan random_normal random_uniform random_bernoulli "
    "random_categorical while_loop cond custom_layer topk".split()
)


@rule("error", "T1 T2 T4")
def no_neural_engine_path(op: StoredOp, f: StoredFunction) -> str | None:
    """No way through the Neural Engine is known for these: the graph is cut there."""
    return complain(op.type in _NO_PATH, op.type)


@rule("warning", "A3 T4")
def fused_attention(op: StoredOp, f: StoredFunction) -> str | None:
    """Apple names no fused attention on the engine: matmul, softmax, matmul is safer."""
    return complain(op.type == "scaled_dot_product_attention", "fused attention")


@rule("info", "A1 A2")
def heads_side_by_side(op: StoredOp, f: StoredFunction) -> str | None:
    """Heads one by one stay in the engine's cache: attention "per-head" splits them."""
    x = f.type_of(op, "x") if op.type == "softmax" else None
    maker = next((f.producers.get(n) for n in op.inputs.get("x", ())), None)
    together = x and len(x.shape) == 4 and x.shape[1] > 1 and maker and maker.type == "matmul"
    return complain(together, f"{x.shape[1] if together and x else 1} heads")


@rule("warning", "A3")
def decomposed_normalization(op: StoredOp, f: StoredFunction) -> str | None:
    """Written out in parts, a layer norm overflows float16 sooner: use layer_norm."""
    if op.type not in {"rsqrt", "sqrt", "pow"}:
        return None
    before = [f.producers[n] for n in op.inputs.get("x", ()) if n in f.producers]
    before += [f.producers[n] for b in before for n in b.reads() if n in f.producers]
    return complain(any(b.type == "reduce_mean" for b in before), f"{op.type} of a mean")


@rule("info", "T1 T2")
def large_upsampling(op: StoredOp, f: StoredFunction) -> str | None:
    """Factors above 2 may leave the engine: double several times."""
    factors = [f.value(op, f"scale_factor_{side}") for side in ("height", "width")]
    largest = max((float(np.max(v)) for v in factors if v is not None), default=1)
    return complain(op.type.startswith("upsample") and largest > 2, f"factor {largest:g}")


@rule("info", "T1 A1")
def large_operand(op: StoredOp, f: StoredFunction) -> str | None:
    """Values beyond 2 MB leave the engine's memory and are streamed."""
    largest = max((int(np.prod(s)) * 2 for d, s in tensors(op, f) if d == "fp16"), default=0)
    return complain(largest > 2 << 20, f"{largest / 2**20:.1f} MB")


@rule("info", "T4")
def small_model(op: StoredOp, f: StoredFunction) -> str | None:
    """Below a million weights Core ML is seen to stay on the CPU, which may be fast enough."""
    if op is not f.operations[0]:  # it is said once, of the whole
        return None
    count = sum(weight.size for weight in f.weights.values())
    return complain(0 < count < 1_000_000, f"{count:,} weights in all")
