"""Every operation we lower, as a row: MLX's own result against the MIL program's."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest

from converters.evaluate import evaluate
from converters.passes import run_passes
from converters.trace import trace
from ondevice.errors import UnsupportedOpError

from .lowered import as_module, assert_lowered

mx.random.seed(0)
IMAGE = mx.random.normal((1, 8, 8, 6))
TOKENS = mx.random.normal((2, 10, 16))
POSITIVE = mx.abs(TOKENS) + 0.5
EDGES = [(0, 0), (1, 1), (1, 1), (0, 0)]

CASES = {
    # convolutions
    "conv": (nn.Conv2d(6, 8, 3), IMAGE),
    "conv padded": (nn.Conv2d(6, 8, 3, padding=1), IMAGE),
    "conv strided": (nn.Conv2d(6, 8, 3, stride=2, padding=1), IMAGE),
    "conv depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6), IMAGE),
    "conv grouped": (nn.Conv2d(6, 12, 3, groups=3), IMAGE),
    "conv dilated": (nn.Conv2d(6, 6, 3, padding=2, dilation=2), IMAGE),
    "conv of a batch": (nn.Conv2d(6, 8, 3), mx.random.normal((3, 8, 8, 6))),
    "conv1d": (nn.Conv1d(16, 8, 3, padding=1), TOKENS),
    "conv transposed": (nn.ConvTranspose2d(6, 4, 2, 2), IMAGE),
    "conv transposed, padded": (nn.ConvTranspose2d(6, 4, 3, 2, 1), IMAGE),
    # pools and resizing
    "max pool": (nn.MaxPool2d(2, 2), IMAGE),
    "max pool, overlapping": (nn.MaxPool2d(3, 2, 1), IMAGE),
    "average pool": (nn.AvgPool2d(2, 2), IMAGE),
    "average pool, overlapping": (nn.AvgPool2d(3, 1, 1), IMAGE),
    "max pool of padded": (lambda x: nn.MaxPool2d(3, 2)(mx.pad(x, EDGES)), IMAGE - 2),
    "max pool, padded twice": (lambda x: nn.MaxPool2d(3, 2, 1)(mx.pad(x, EDGES)), IMAGE - 2),
    "max pool of padded with -inf": (
        lambda x: nn.MaxPool2d(3, 2)(mx.pad(x, EDGES, constant_values=-mx.inf)),
        IMAGE,
    ),
    "average pool of padded": (lambda x: nn.AvgPool2d(3, 2)(mx.pad(x, EDGES)), IMAGE),
    "average pool of padded with 5": (
        lambda x: nn.AvgPool2d(3, 2)(mx.pad(x, EDGES, constant_values=5.0)),
        IMAGE,
    ),
    "average pool of padded channels": (lambda x: nn.AvgPool2d(3, 2)(mx.pad(x, 1)), IMAGE),
    "average pool of padded more than a window": (
        lambda x: nn.AvgPool2d(2, 1)(mx.pad(x, [(0, 0), (3, 1), (3, 0), (0, 0)])),
        IMAGE,
    ),
    "max pool 1d": (nn.MaxPool1d(2, 2), TOKENS),
    "upsample nearest": (nn.Upsample(2), IMAGE),
    "upsample linear": (nn.Upsample(2, mode="linear"), IMAGE),
    "upsample corners": (nn.Upsample(2, mode="linear", align_corners=True), IMAGE),
    # matrix products
    "linear": (nn.Linear(16, 4), TOKENS),
    "linear without bias": (nn.Linear(16, 4, bias=False), TOKENS),
    "linear of an image": (nn.Linear(6, 4), IMAGE),
    "matmul": (lambda x: x @ x.swapaxes(1, 2), TOKENS),
    "matmul, turned": (lambda x: x.swapaxes(1, 2) @ x, TOKENS),
    "addmm": (lambda x: mx.addmm(x, x, x, alpha=0.5, beta=2.0), mx.random.normal((2, 8, 8))),
    "einsum": (lambda x: mx.einsum("bhwc,bhvc->bhwv", x, x), IMAGE),
    "attention": (lambda x: mx.fast.scaled_dot_product_attention(x, x, x, scale=0.3), IMAGE),
    "causal attention": (
        lambda x: mx.fast.scaled_dot_product_attention(x, x, x, scale=0.3, mask="causal"),
        IMAGE,
    ),
    "queries, keys and values of one product, split in front": (
        lambda x: mx.fast.scaled_dot_product_attention(
            *x.reshape(2, 10, 3, 2, 8).transpose(2, 0, 3, 1, 4), scale=0.3
        ),
        mx.random.normal((2, 10, 48)),
    ),
    "embedding": (nn.Embedding(50, 16), mx.array([[1, 4, 2, 8]])),
    # norms
    "layer norm": (nn.LayerNorm(6), IMAGE),
    "RMS norm": (nn.RMSNorm(6), IMAGE),
    "group norm": (nn.GroupNorm(3, 6), IMAGE),
    "group norm, torch's groups": (nn.GroupNorm(3, 6, pytorch_compatible=True), IMAGE),
    "instance norm": (nn.InstanceNorm(6, affine=True), IMAGE),
    # activations
    "relu6": (nn.ReLU6(), 4 * IMAGE),
    "silu": (nn.SiLU(), IMAGE),
    "gelu": (nn.GELU(), IMAGE),
    "gelu, tanh": (nn.GELU("tanh"), IMAGE),
    "gelu, sigmoid": (nn.GELU("fast"), IMAGE),
    "hard swish": (nn.Hardswish(), 4 * IMAGE),
    "leaky relu": (nn.LeakyReLU(0.2), IMAGE),
    "prelu": (nn.PReLU(), IMAGE),
    "elu": (nn.ELU(), IMAGE),
    "selu": (nn.selu, IMAGE),
    "celu": (nn.CELU(), IMAGE),
    "softplus": (nn.softplus, IMAGE),
    "mish": (nn.mish, IMAGE),
    "hard tanh": (nn.HardTanh(), IMAGE),
    "glu": (nn.glu, IMAGE),
    "log softmax": (lambda x: nn.log_softmax(x, axis=-1), TOKENS),
    "softmax of another axis": (lambda x: mx.softmax(x, axis=1), IMAGE),
    # elementwise
    "where": (lambda x: mx.where(x > 0, x, 0.1 * x), IMAGE),
    "comparisons": (lambda x: mx.where((x > 0.1) & ~(x >= 1) | (x < -1), x, 2.0), IMAGE),
    "clip": (lambda x: mx.clip(x, -1, 1), IMAGE),
    "powers and roots": (lambda x: x**1.5 + mx.sqrt(x) + mx.rsqrt(x), POSITIVE),
    "logarithms": (lambda x: mx.log(x) + mx.log2(x) + mx.log10(x) + mx.log1p(x), POSITIVE),
    "exponentials": (lambda x: mx.exp(x) + mx.expm1(x) + mx.tanh(x) + mx.erf(x), TOKENS),
    "waves": (lambda x: mx.sin(x) + mx.cos(x) + mx.tan(0.1 * x), TOKENS),
    "rounding": (lambda x: mx.floor(x) + 2 * mx.ceil(x) + 4 * mx.round(x) - mx.abs(x), TOKENS),
    "division and remainder": (lambda x: (x / 3) % 0.7 + 1 / x - (-x), POSITIVE),
    "arange": (lambda x: x + mx.arange(6), IMAGE),
    # reductions
    "sum": (lambda x: x.sum(-1), TOKENS),
    "mean": (lambda x: x.mean((1, 2)), IMAGE),
    "max and min": (lambda x: x.max(axis=(1, 2)) - x.min(axis=(1, 2)), IMAGE),
    "product": (lambda x: x.prod(-1), POSITIVE),
    "variance": (lambda x: mx.var(x, axis=(1, 2)), IMAGE),
    "norm": (lambda x: x / mx.linalg.norm(x, axis=-1, keepdims=True), TOKENS),
    "log-sum-exp": (lambda x: mx.logsumexp(x, axis=-1), TOKENS),
    "argmax": (lambda x: mx.argmax(x, axis=-1), TOKENS),
    "cumulative sum": (lambda x: mx.cumsum(x, axis=1), TOKENS),
    "cumulative product of constants": (
        lambda x: x * mx.cumprod(mx.arange(1, 17) * 0.2),
        TOKENS,
    ),
    "sort": (lambda x: mx.sort(x, axis=1), TOKENS),
    "argsort": (lambda x: mx.argsort(x, axis=-1), TOKENS),
    "top k": (lambda x: mx.sort(mx.topk(x, 3, axis=-1), axis=-1), TOKENS),
    "places of the top k": (
        lambda x: mx.sort(mx.argpartition(x, kth=-3, axis=1)[:, -3:], axis=1),
        TOKENS,
    ),
    "gather in order": (
        lambda x: mx.take_along_axis(x, mx.argsort(-x, axis=1)[:, :4], axis=1),
        TOKENS,
    ),
    # moving data
    "pad": (lambda x: mx.pad(x, [(0, 0), (1, 1), (2, 0), (0, 0)]), IMAGE),
    "slice": (lambda x: x[:, ::2, 1:], TOKENS),
    "flip": (lambda x: x[:, ::-1], IMAGE),
    "roll": (lambda x: mx.roll(x, 2, axis=1), IMAGE),
    "take": (lambda x: mx.take(x, mx.array([2, 0, 1]), axis=1), TOKENS),
    "index": (lambda x: x[:, :, mx.array([2, 0, 1])], TOKENS),
    "split and concatenate": (
        lambda x: mx.concatenate(list(reversed(mx.split(x, [1, 4], axis=-1))), axis=-1),
        IMAGE,
    ),
    "stack": (lambda x: mx.stack([x, 2 * x], axis=1), TOKENS),
    "tile and repeat": (lambda x: mx.repeat(mx.tile(x, (1, 2, 1)), 2, axis=1), TOKENS),
    "broadcast": (lambda x: mx.broadcast_to(x[:, :1], (2, 10, 16)), TOKENS),
    "pixel shuffle": (
        lambda x: (
            x[..., :4].reshape(1, 8, 8, 2, 2).transpose(0, 1, 3, 2, 4).reshape(1, 16, 16, 1)
        ),
        IMAGE,
    ),
    "windows": (
        lambda x: x.reshape(1, 2, 4, 2, 4, 6).transpose(0, 1, 3, 2, 4, 5).reshape(4, 16, 6),
        IMAGE,
    ),
    "rope": (nn.RoPE(16), TOKENS),
    "two inputs, two outputs": (
        lambda a, b: [a + b.mean((1, 2), keepdims=True), a * b],
        IMAGE,
        IMAGE + 1,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_graph_can_be_run_as_it_stands(case):
    fn, *inputs = CASES[case]
    module = as_module(fn)
    graph = run_passes(trace(module, *inputs))
    wanted = module(*inputs)
    wanted = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    found = evaluate(graph, *inputs)
    for name, reference in zip(graph.outputs, wanted, strict=True):
        assert found[name].shape == reference.shape
        assert mx.abs(found[name] - reference).max() <= 2e-5 * mx.abs(reference).max()


@pytest.mark.parametrize("case", CASES)
def test_the_program_gives_what_mlx_gives(case):
    fn, *inputs = CASES[case]
    assert_lowered(fn, *inputs)


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.2, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("pick", [mx.maximum, mx.minimum])
def test_the_larger_of_x_and_a_multiple_is_what_mlx_says(pick, slope):
    assert_lowered(lambda x: pick(slope * x, x), TOKENS)


def test_a_quotient_is_rounded_down_as_in_mlx():
    x = mx.array([[1.0, 0.6, -1.0, 7.0, -7.0, 2.0]])
    assert_lowered(lambda x: x // mx.array([0.1, 0.1, 0.1, -2.0, -2.0, 1e-6]), x)
    assert_lowered(lambda x: x.astype(mx.int32) // 2 + 0 * x, x)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0])
def test_a_norm_of_any_eps_is_what_mlx_says(scale):
    """Up to an eps of zero, which Core ML's own norm need not know."""
    assert_lowered(lambda x: mx.fast.layer_norm(x, None, None, scale * 1e-5), TOKENS)


def test_what_is_divided_by_zero_is_infinite():
    def fn(x):
        return mx.minimum(mx.abs(x) / mx.array([0.0, 1.0] * 8), 1e3)

    assert_lowered(fn, TOKENS)


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (lambda x: mx.cummax(x, axis=1), "a scan that is not a sum"),
        (mx.erfinv, "cannot export ErfInv"),
    ],
)
def test_what_core_ml_has_no_operation_for_is_refused(fn, said):
    with pytest.raises(UnsupportedOpError, match=said):
        assert_lowered(fn, 0.1 * TOKENS)
