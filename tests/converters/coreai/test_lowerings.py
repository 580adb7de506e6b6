"""Every operation we lower, as a row: MLX's own result against Apple's runtime."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters.coreai.program import Source, to_program
from converters.coreai.registry import _LOWERINGS
from converters.coreml.registry import _LOWERINGS as _COREML
from converters.graph.graph import Graph, Node, Value
from converters.graph.passes import channels_first
from converters.graph.passes.precision import set_precision
from converters.graph.resizing import sample
from ondevice.errors import UnsupportedOpError

from ..coreml.test_lowerings import CASES, EVALUATED_ONLY, IMAGE, NODES, POSITIVE, TOKENS
from .kit import assert_lowered, in_half, physical_graph, run_graph

ALSO = ("running extremes", "running products", "all and any")
CASES = CASES | {name: EVALUATED_ONLY[name] for name in ALSO if name in EVALUATED_ONLY}


@pytest.mark.parametrize("case", CASES)
def test_the_program_gives_what_mlx_gives(case):
    fn, *inputs = CASES[case]
    assert_lowered(fn, *inputs)


@pytest.mark.parametrize("case", NODES)
def test_a_node_that_is_in_no_trace_gives_what_it_stands_for(case):
    graph, inputs, fn = NODES[case]
    wanted = np.array(fn(*inputs))
    [lowered] = run_graph(channels_first(graph).check(), inputs)
    assert np.abs(lowered - wanted).max() <= 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_images_sampled_in_half_precision_are_read_where_the_points_are(padding):
    """Of two images wider than half precision counts: 2048 is its last whole number."""
    image = mx.random.normal((2, 3, 2999, 2))
    points = mx.random.uniform(-1.1, 1.1, (2, 4, 5, 2)).astype(mx.float16).astype(mx.float32)
    given = (Value("x", image.shape), Value("p", points.shape))
    node = Node("Resample", ("x", "p"), (Value("y", (2, 4, 5, 2)),), (padding,))
    graph = channels_first(Graph(given, ("y",), {}, (node,)))
    [y] = run_graph(set_precision(graph, "float16").check(), [image, points])
    wanted = np.array(sample(image, points, padding))
    assert np.abs(y - wanted).max() <= 3e-3 * np.abs(wanted).max()


def test_all_is_lowered_that_core_ml_has():
    assert _COREML.keys() <= _LOWERINGS.keys()


MORE = {
    "types there and back": (
        lambda x: x.astype(mx.int32).astype(mx.float32) + x.astype(mx.bool_).astype(mx.float32),
        2 * mx.round(2 * TOKENS) * 0.3,
    ),
    "conv1d strided, in groups": (nn.Conv1d(16, 8, 3, stride=2, groups=4), TOKENS),
    "conv3d": (nn.Conv3d(3, 4, 2, padding=1), mx.random.normal((1, 4, 5, 6, 3))),
    "conv1d transposed": (nn.ConvTranspose1d(16, 4, 3, 2, 1), TOKENS),
    "conv3d transposed": (nn.ConvTranspose3d(3, 4, 2, 2), mx.random.normal((1, 3, 4, 2, 3))),
    "conv transposed, in groups": (
        lambda x: mx.conv_transpose2d(x, KERNEL, stride=2, padding=1, groups=2),
        IMAGE,
    ),
    "conv transposed, more on one side": (
        lambda x: mx.conv_general(
            x, KERNEL6, padding=([0, 1], [2, 0]), input_dilation=2, flip=True
        ),
        IMAGE,
    ),
    "conv transposed, output padding": (
        nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1),
        IMAGE,
    ),
    "scans": (
        lambda x: mx.cumprod(x, axis=1, reverse=True) + mx.cummax(x, axis=2, reverse=True),
        POSITIVE,
    ),
    "index of two axes that are not the first": (
        lambda x: x[:, mx.array([0, 1, 7]), mx.array([2, 5, 0])],
        IMAGE,
    ),
    "a quotient is rounded down": (
        lambda x: x // mx.array([0.1, 0.1, 0.1, -2.0, -2.0, 1e-6]),
        mx.array([[1.0, 0.6, -1.0, 7.0, -7.0, 2.0]]),
    ),
    "a quotient of integers": (lambda x: x.astype(mx.int32) // 2 + 0 * x, 3 * TOKENS),
    "a remainder of integers": (lambda x: x.astype(mx.int32) % -3 + 0 * x, 3 * TOKENS),
    "a product of flattened tokens, and a sum": (
        lambda x, y, z: mx.addmm(z, x.reshape(-1, 16), y) * 2,
        mx.random.normal((2, 12, 16)),
        mx.random.normal((16, 5)),
        mx.random.normal((24, 5)),
    ),
    "a product of a matrix and flattened tokens, and a factor": (
        lambda x, y, z: (y @ x.reshape(-1, 16).T) * z,
        mx.random.normal((2, 12, 16)),
        mx.random.normal((5, 16)),
        mx.random.normal((24,)),
    ),
    "softplus of much": (lambda x: nn.softplus(90 * x), TOKENS),
    "slope above one": (lambda x: mx.maximum(1.5 * x, x), TOKENS),
    "layer norm without a weight": (nn.LayerNorm(16, affine=False), TOKENS),
    "layer norm without a bias": (nn.LayerNorm(16, bias=False), TOKENS),
    "layer norm over two axes": (
        lambda x: (
            (x - x.mean((1, 2), keepdims=True)) * mx.rsqrt(x.var((1, 2), keepdims=True) + 1e-5)
        ),
        IMAGE,
    ),
}
KERNEL = mx.random.normal((4, 3, 3, 3))
KERNEL6 = mx.random.normal((4, 3, 3, 6))
mx.eval(KERNEL, KERNEL6)


@pytest.mark.parametrize("case", MORE)
def test_so_does_what_is_written_otherwise_in_core_ai(case):
    fn, *inputs = MORE[case]
    assert_lowered(fn, *inputs)


@pytest.mark.parametrize("fn", [mx.floor, mx.ceil])
def test_large_half_precision_numbers_are_rounded_without_overflow(fn):
    """Twice of them is infinite, and twice is how Core AI is made to round on a GPU."""
    x = mx.array([[-60000.0, -1.5, -0.25, 0.5, 2000.5, 40000.0]])
    [rounded] = run_graph(in_half(physical_graph(lambda x: fn(x), x)), [x])
    assert np.array_equal(rounded, np.array(fn(x.astype(mx.float16)), np.float32))


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_norm_over_any_axis_is_the_composite(axis):
    """Of the channels of tokens that lie as (1, C, 1, S), for one."""
    given = (IMAGE, mx.random.normal((IMAGE.shape[axis],)), mx.random.normal((1,)))
    x, gamma, beta = given[0], given[1], given[2] + mx.zeros_like(given[1])
    values = (Value("x", x.shape), Value("g", gamma.shape), Value("b", beta.shape))
    node = Node("LayerNorm", ("x", "g", "b"), (Value("y", x.shape),), ((axis,), 1e-5))
    graph = Graph(values, ("y",), {}, (node,))
    [y] = run_graph(graph, [x, gamma, beta])
    wide = [n if i == axis else 1 for i, n in enumerate(x.shape)]
    centered = x - x.mean(axis, keepdims=True)
    wanted = centered * mx.rsqrt(x.var(axis, keepdims=True) + 1e-5)
    wanted = wanted * gamma.reshape(wide) + beta.reshape(wide)
    assert np.abs(y - np.array(wanted)).max() < 2e-5
    module = to_program({"main": Source(graph, ("y",))})
    assert 'composite_declaration<"layer_norm"' in str(module)


def test_a_norm_in_half_precision_is_computed_in_float32():
    x = 300 * mx.random.normal((1, 4, 32)) + 1000
    graph = in_half(physical_graph(nn.LayerNorm(32), x))
    [y] = run_graph(graph, [x])
    wanted = np.array(nn.LayerNorm(32)(x.astype(mx.float16).astype(mx.float32)))
    assert np.abs(y - wanted).max() < 4e-3


def test_a_head_in_half_precision_is_added_up_in_float32():
    """Apple's runtime rounds each term of a matrix product, here to four times the error."""
    x, layer = mx.random.normal((1, 1024)), nn.Linear(1024, 64, bias=False)
    layer.weight = layer.weight.astype(mx.float16).astype(mx.float32)
    x = x.astype(mx.float16).astype(mx.float32)
    [y] = run_graph(in_half(physical_graph(layer, x)), [x])
    wanted = np.array(layer(x))
    assert np.abs(y - wanted).max() <= 2.0**-11 * np.abs(wanted).max()  # rounded once


@pytest.mark.parametrize("zero_point", [0, -7])
def test_eight_bits_are_steps_of_the_scale(zero_point):
    """float32 to int8 and back: the nearest step, to the ends of int8."""
    x = np.linspace(-4, 4, 81, dtype=np.float32).reshape(9, 9)
    scale = 0.025
    there = Node("Quantize", ("x",), (Value("q", x.shape, "int8"),), (scale, zero_point))
    back = Node("Dequantize", ("q",), (Value("y", x.shape),), (scale, zero_point))
    graph = Graph((Value("x", x.shape),), ("y",), {}, (there, back))
    steps = np.clip(np.rint(x / np.float32(scale)) + zero_point, -128, 127)
    wanted = (steps - zero_point) * scale
    [y] = run_graph(graph, [mx.array(x)])
    assert np.abs(y - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (lambda x: mx.erfinv(x), "cannot export ErfInv"),
        (lambda x: mx.where(x > 0, mx.array(1 << 40), mx.array(0)), "does not fit 32 bits"),
    ],
)
def test_what_core_ai_has_no_operation_for_is_one_line(fn, said):
    with pytest.raises(UnsupportedOpError, match=said) as caught:
        run_graph(physical_graph(fn, TOKENS), [TOKENS])
    assert "\n" not in str(caught.value)
