"""What we rely on in MLX's export callback, which MLX calls experimental.

If MLX renames a primitive or reorders its arguments, this says so in one place.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest

from converters.graph.record import trace_function

X = mx.zeros((1, 4, 4, 8))
W = mx.zeros((8, 3, 3, 8))
mx.eval(X, W)  # else how they are made is recorded

CONTRACT = {
    "convolution": (
        lambda x: mx.conv2d(x, W, stride=2, padding=1, groups=1),
        [("Convolution", ((2, 2), (1, 1), (1, 1), (1, 1), (1, 1), 1, False))],
    ),
    "transposed convolution": (
        lambda x: mx.conv_transpose2d(x, W, stride=2),
        [("Convolution", ((1, 1), (2, 2), (2, 2), (1, 1), (2, 2), 1, True))],
    ),
    "sum": (lambda x: x.sum(axis=1), [("Reduce", ("sum", (1,))), ("Squeeze", ((1,),))]),
    "max": (lambda x: x.max(axis=1, keepdims=True), [("Reduce", ("max", (1,)))]),
    "rsqrt": (mx.rsqrt, [("Sqrt", (True,))]),
    "split": (lambda x: mx.split(x, [2, 4], axis=-1)[0], [("Split", ((2, 4), 3))]),
    "slice": (
        lambda x: x[:, 1::2],
        [("Slice", ((0, 1, 0, 0), (1, 4, 4, 8), (1, 2, 1, 1)))],
    ),
    "transpose": (lambda x: x.transpose(0, 3, 1, 2), [("Transpose", ((0, 3, 1, 2),))]),
    "concatenate": (lambda x: mx.concatenate([x, x], axis=2), [("Concatenate", (2,))]),
    "softmax": (lambda x: mx.softmax(x, axis=-1), [("Softmax", ())]),
    "pad": (
        lambda x: mx.pad(x, [(0, 0), (1, 2), (0, 0), (0, 0)]),
        [("Pad", ((0, 1, 2, 3), (0, 1, 0, 0), (0, 2, 0, 0)))],
    ),
    "gather": (lambda x: mx.take(x, mx.array([1, 2]), axis=1), ["Gather"]),
    "linear": (
        nn.Linear(8, 4),
        ["Reshape", "Transpose", "Broadcast", ("AddMM", (1.0, 1.0)), "Reshape"],
    ),
}


@pytest.mark.parametrize("case", CONTRACT)
def test_mlx_records_what_we_read(case):
    fn, expected = CONTRACT[case]
    if isinstance(fn, nn.Module):
        mx.eval(fn.parameters())
    nodes = trace_function(fn, X).nodes
    found = [
        (n.op, n.args) if isinstance(e, tuple) else n.op
        for n, e in zip(nodes, expected, strict=False)
    ]
    assert found == expected
