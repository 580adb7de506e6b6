"""Half precision's range: what would overflow is rescaled exactly, or computed in float32."""

from __future__ import annotations

import json
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import ondevice
from converters import export, export_module, load_package
from converters.compress.apply import Compression
from converters.compress.calibrate import calibrate, input_divisors
from converters.compress.float16 import LARGEST, Safety, make_safe, rescale, round_kernels
from converters.compress.plan import in_mlx
from converters.export.build import lay_out, named, to_graph
from converters.function import module_function
from converters.graph.evaluate import evaluate, peaks
from converters.graph.passes import run_passes
from converters.graph.trace import trace

from ...support.lowered import as_module

mx.random.seed(0)  # of the cases below
X = mx.random.normal((1, 8, 8, 4), key=mx.random.key(3))


class Stream(nn.Module):
    """A residual stream of convolutions that grows ``gain``-fold, as FastViTHD's does."""

    def __init__(self, gain: float, norm: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 1)
        self.up, self.down = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.down.weight = self.down.weight * gain
        self.stem.weight, self.stem.bias = (
            p * min(gain, 1) for p in (self.stem.weight, self.stem.bias)
        )
        self.up.bias, self.down.bias = mx.zeros(16), mx.zeros(8)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()
        self.head = nn.Conv2d(8, 3, 1)
        if not norm:
            self.head.weight = self.head.weight / gain

    def __call__(self, x):
        x = self.stem(x)
        x = x + self.down(nn.gelu(self.up(x)))
        return self.head(self.norm(x))


def raised(net):
    return run_passes(trace(as_module(net), X))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("gain", [1e6, 1e-4])
def test_a_stream_out_of_range_is_rescaled_exactly(gain, norm):
    graph = raised(Stream(gain, norm))
    before = peaks(graph, X)
    safe, safety = rescale(graph, before)
    after = peaks(safe, X)
    stream = next(n.output.name for n in graph.nodes if n.op == "Add")
    assert stream in safety.rescaled
    assert 2**-9 < after[stream] < LARGEST / 16
    assert after[stream] == before[stream] * 2.0 ** -safety.rescaled[stream]
    assert not safety.float32
    a, b = (evaluate(g, X)[g.outputs[0]] for g in (graph, safe))
    assert mx.abs(a - b).max() <= 1e-6 * mx.abs(a).max()
    assert [n.op for n in safe.nodes] == [n.op for n in graph.nodes]  # it costs nothing


def test_a_stream_in_range_is_left_alone():
    graph = raised(Stream(10.0))
    safe, safety = rescale(graph, peaks(graph, X))
    assert safe is graph
    assert not safety.rescaled


def test_what_an_activation_needs_as_it_is_is_computed_in_float32(tmp_path):
    class Hot(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 3, 1)
            self.a.weight = self.a.weight * 1e6
            self.b.weight = self.b.weight * 1e-6

        def __call__(self, x):
            return self.b(nn.gelu(self.a(x)))

    net = as_module(Hot())
    package = load_package(export_module(net, X, tmp_path / "hot.mlpackage", input_names=["x"]))
    got = package.predict({"x": np.array(X)})["output"]
    want = np.array(net(X))
    assert np.abs(got - want).max() < 1.5e-3 * np.abs(want).max()  # 4e-4
    said = json.loads(package.metadata["ondevice.float16"])
    assert said["peak"] > LARGEST
    assert said["at"] == "a"
    assert said["float32"] == ["a", "the module itself", "b"]
    assert package.operations.count("cast") == 2


def test_a_layer_that_no_parameter_tells_is_not_called_by_a_traced_name(tmp_path):
    """The shipped model's largest values are its picture's, less the mean."""
    path = export(ondevice.create_model("shvit_nano", num_classes=2), tmp_path / "n.mlpackage")
    said = json.loads(load_package(path).metadata["ondevice.float16"])
    assert said["at"] == "the module itself"


@pytest.mark.parametrize("gain", [1e6, 1e-4])
def test_weights_go_back_to_mlx_without_their_powers_of_two(gain):
    net = Stream(gain)
    net.stem.bias = mx.full(8, min(gain, 1) / 4)
    function = module_function(as_module(net), X)
    samples = [np.array(X) * scale for scale in np.linspace(0.5, 1.5, 8, dtype=np.float32)]
    calibration = calibrate(function, samples)
    graph, safety = make_safe(to_graph(function), function)
    function = named(function, graph)
    assert safety.rescaled
    divisors = input_divisors(graph, safety.rescaled)
    constants = in_mlx(calibration.graph, Compression(lay_out(graph, function)), divisors)
    assert {"stem.weight", "stem.bias", "up.weight", "down.weight"} <= constants.keys()
    (got,), (want,) = calibration.outputs(constants), calibration.outputs()
    np.testing.assert_array_equal(got, want)


def test_what_only_calibration_samples_reach_is_rescaled_too(tmp_path):
    net, large = as_module(Stream(1e3)), X * 1e3  # the example itself stays in range
    want = np.array(net(large))

    def error(name, **options):
        path = export_module(
            net, X, tmp_path / f"{name}.mlpackage", input_names=["x"], **options
        )
        got = load_package(path).predict({"x": np.array(large)})["output"]
        return np.abs(got - want).max() / np.abs(want).max()

    assert error("calibrated", calibration=[np.array(large)]) < 3e-3  # 1e-3
    assert not error("plain") < 0.1


def test_without_it_the_package_would_overflow(tmp_path, monkeypatch):
    net = as_module(Stream(1e6))
    safe = load_package(export_module(net, X, tmp_path / "safe.mlpackage", input_names=["x"]))
    home = sys.modules["converters.export.build"]
    monkeypatch.setattr(home, "make_safe", lambda graph, *_: (graph, Safety()))
    naive = load_package(export_module(net, X, tmp_path / "naive.mlpackage", input_names=["x"]))
    want = np.array(net(X))

    def error(package):
        return np.abs(package.predict({"x": np.array(X)})["output"] - want).max()

    assert error(safe) < 5e-3 * np.abs(want).max()
    assert not error(naive) < np.abs(want).max() / 10


def test_large_kernels_are_rounded_with_their_sums_kept():
    conv = nn.Conv2d(8, 8, 7, padding=3, groups=8, bias=False)
    graph = run_passes(trace(conv.eval(), mx.zeros((1, 16, 16, 8))))
    (before,) = (v for v in graph.constants.values() if v.ndim == 4)
    (after,) = (v for v in round_kernels(graph).constants.values() if v.ndim == 4)
    taps, rounded = (np.float64(v).reshape(8, -1) for v in (before, after))
    nearest = np.float64(np.float16(taps))
    assert (rounded == np.float16(rounded)).all()
    # Half a step is carried to a tap, half a step is its own rounding.
    assert np.abs(rounded - taps).max() < 2.0**-10 * np.abs(taps).max()
    left, usual = (np.abs((r - taps).sum(axis=1)) for r in (rounded, nearest))
    assert left.max() < 2.0**-11 * np.abs(taps).min(axis=1).max() < usual.mean()
    kept = round_kernels(graph, keep=[n.outputs[0].name for n in graph.nodes])
    assert all(kept.constants[k] is v for k, v in graph.constants.items())


def sample(x, grid):
    """Bilinear samples of ``x`` (B, H, W, C) at ``grid`` (B, h, w, 2), zeros outside."""
    _, H, W, C = x.shape
    left, top = (mx.floor(grid[..., i] * n) for i, n in enumerate((W, H)))
    right, down = grid[..., 0] * W - left, grid[..., 1] * H - top

    def at(row, column):
        inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
        index = mx.clip(row, 0, H - 1) * W + mx.clip(column, 0, W - 1)
        found = x.reshape(H * W, C)[index.astype(mx.int32).reshape(-1)]
        return found.reshape(*index.shape, C) * inside[..., None]

    return (
        at(top, left) * ((1 - right) * (1 - down))[..., None]
        + at(top, left + 1) * (right * (1 - down))[..., None]
        + at(top + 1, left) * ((1 - right) * down)[..., None]
        + at(top + 1, left + 1) * (right * down)[..., None]
    )


class Offsets(nn.Module):
    """Samples its image a little beside each pixel, as deformable attention does."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(8, 2, 3, padding=1)

    def __call__(self, x):
        H, W = x.shape[1:3]
        grid = mx.meshgrid(mx.arange(W) / W, mx.arange(H) / H, indexing="xy")
        return sample(x, mx.stack(grid, axis=-1)[None] + 0.1 * mx.tanh(self.offset(x)))


def psnr(path, *inputs):
    module = as_module(Offsets() if len(inputs) == 1 else sample)
    package = load_package(export_module(module, list(inputs), path))
    got = package.predict(dict(zip(package.inputs, map(np.array, inputs), strict=True)))
    wanted = np.array(module(*inputs))
    error = np.sqrt(np.mean(np.square(got["output"] - wanted)))
    return 20 * np.log10(np.abs(wanted).max() / error), package


@pytest.mark.parametrize("size", [32, 96])
def test_indices_are_computed_in_full_precision(tmp_path, size):
    """Half precision knows no position between 64 and 96 finer than a sixteenth."""
    x, grid = mx.random.normal((1, size, size, 8)), mx.random.uniform(-0.05, 1, (1, 20, 20, 2))
    found, package = psnr(tmp_path / "given.mlpackage", x, grid)
    assert found > 70  # the image's own rounding
    assert [f.dtype for f in package.inputs.values()] == ["float16", "float32"]
    found, _ = psnr(tmp_path / "computed.mlpackage", x)
    assert found > 55


def test_a_comparison_with_a_number_is_typed_as_what_it_compares(tmp_path):
    net = as_module(lambda x: mx.where(mx.tanh(x) > 0.5, x, nn.elu(x)))
    package = load_package(export_module(net, X, tmp_path / "x.mlpackage", input_names=["x"]))
    np.testing.assert_allclose(
        package.predict({"x": np.array(X)})["output"], np.array(net(X)), atol=4e-3
    )


@pytest.mark.parametrize(
    "odd", [lambda x: x // 1e4, lambda x: ((x > 0) ^ (x > 1)).astype(mx.float32)]
)
def test_no_operation_switches_protection_off(tmp_path, odd):
    class Net(Stream):
        def __call__(self, x):
            y = super().__call__(x)
            return y + odd(y)

    net = as_module(Net(1e6))
    package = load_package(export_module(net, X, tmp_path / "x.mlpackage", input_names=["x"]))
    assert json.loads(package.metadata["ondevice.float16"])["peak"] > LARGEST
    assert np.isfinite(package.predict({"x": np.array(X)})["output"]).all()


SMALL = {
    "log of a sum": (lambda x: mx.log(nn.relu(x) + 1e-8), X),
    "log of a limit": (lambda x: mx.log(mx.maximum(mx.softmax(30 * x, axis=-1), 1e-10)), X),
    "division by a sum": (lambda x: x / (mx.linalg.norm(x, axis=-1, keepdims=True) + 1e-8), X),
    "division by a limit": (
        lambda x: x / mx.maximum(mx.linalg.norm(x, axis=-1, keepdims=True), 1e-12),
        X,
    ),
    "a root": (lambda x: x * mx.rsqrt((x * x).sum(-1, keepdims=True) + 1e-12), X),
    "a norm": (nn.RMSNorm(4, eps=1e-8), X),
    "a standard deviation": (
        lambda x: (x - x.mean(-1, keepdims=True)) / (mx.sqrt(x.var(-1, keepdims=True)) + 1e-8),
        X,
    ),
}


@pytest.mark.parametrize("case", SMALL)
def test_a_small_number_that_guards_a_function_is_not_lost(case, tmp_path):
    """The example has no zeros; what is fed has."""
    fn, x = SMALL[case]
    net = as_module(fn)
    package = load_package(export_module(net, x, tmp_path / "x.mlpackage", input_names=["x"]))
    for given in (x, mx.where(mx.arange(8)[:, None, None] < 4, 0, x)):
        got, want = package.predict({"x": np.array(given)})["output"], np.array(net(given))
        assert np.abs(got - want).max() <= 2e-3 * np.abs(want).max()


FREQUENCIES = mx.array([1.0, 0.1, 0.01])
TABLE = mx.random.normal((4096, 4), key=mx.random.key(5))
mx.eval(TABLE)
EXACT = {
    "angles of whole positions": (
        lambda p: mx.sin(p.astype(mx.float32)[:, None] * FREQUENCIES),
        mx.array([4001, 17]),
    ),
    "angles of times": (lambda t: mx.cos(t[:, None] * FREQUENCIES), mx.array([951.3, 10.2])),
    "indices of sums": (
        lambda x: TABLE[(x > 0).astype(mx.float32).sum(-1).astype(mx.int32) - 1],
        mx.random.normal((2, 3501)),
    ),
    "indices of products": (
        lambda x: TABLE[((x > 0).astype(mx.float32) @ (2.0 ** mx.arange(12))).astype(mx.int32)],
        mx.random.normal((5, 12)),
    ),
    "indices of a gate": (
        lambda x: TABLE[(mx.sigmoid(x).mean(-1) * 3999).astype(mx.int32)],
        mx.random.normal((7, 32)),
    ),
    "a large input": (lambda x: x * 1e-6, mx.array([[1e6, 2e6]])),
    "a small output": (lambda x: x * 1e-7, mx.random.normal((2, 8))),
    "products of many": (
        lambda x: mx.concatenate([mx.prod(x, axis=1), mx.cumprod(x, axis=1)[:, -1]]),
        mx.random.normal((4, 32)),
    ),
    "large exponentials": (lambda x: mx.exp(8 * x), mx.random.uniform(1, 1.25, (4, 32))),
    "remainders": (lambda x: (10 * x) % 1, mx.random.uniform(3, 4, (4, 32))),
    "norms of small values": (nn.RMSNorm(64, eps=1e-12), 1e-4 * mx.random.normal((2, 64))),
    "an epsilon beside a small variance": (
        lambda x: nn.LayerNorm(64, eps=1e-8)(mx.tanh(x)),
        1e-3 * mx.random.normal((2, 64)),
    ),
    "roots of small sums": (
        lambda x: mx.rsqrt(mx.square(1e-4 * x).sum(-1)),
        mx.random.normal((2, 8)),
    ),
    "quotients of small values": (
        lambda x: mx.softmax(x, axis=0)[0] ** 4 / mx.square(1e-3 * mx.tanh(x[0])),
        mx.random.normal((2, 8)),
    ),
    "the root of a square": (lambda x: mx.sqrt((x * 10) ** 2), mx.random.normal((2, 8))),
}


@pytest.mark.parametrize("case", EXACT)
def test_what_half_precision_cannot_tell_apart_is_exact(case, tmp_path):
    fn, x = EXACT[case]
    net = as_module(fn)
    package = load_package(export_module(net, x, tmp_path / "x.mlpackage", input_names=["x"]))
    got, want = package.predict({"x": np.array(x)})["output"], np.array(net(x))
    assert np.abs(got - want).max() <= 2e-3 * np.abs(want).max()
