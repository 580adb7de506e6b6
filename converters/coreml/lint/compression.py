"""Rules about compressed weights and eight-bit activations."""

from __future__ import annotations

from ..stored import StoredFunction, StoredOp
from .rules import complain, rule


@rule("warning", "A4 T4")
def weights_per_block(op: StoredOp, f: StoredFunction) -> str | None:
    """Scales per block are for the GPU of a Mac: on the engine use one per channel."""
    formats = [f.weights[n].format for n in op.reads() if n in f.weights]
    blocked = next((text for text in formats if "block" in text), None)
    return complain(blocked, f"{blocked}")


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
    return complain(op.type == "conv" and has_bits and exact, "float16 input")
