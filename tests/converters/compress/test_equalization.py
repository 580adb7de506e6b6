"""Equalized channels: the same function, whose values take rounding better."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from PIL import Image

from converters.compress.activations import RANGES, affine, symmetric
from converters.compress.apply import Compression
from converters.compress.calibrate import calibrate, measure
from converters.compress.equalization import EQUALIZATIONS, Channels, equalize
from converters.compress.plan import Request, compress, in_mlx
from converters.compress.recipe import CompressionRecipe, Rule, parse_recipe
from converters.coreml.program import to_program
from converters.coreml.reference.plan import compile_function
from converters.export.build import lay_out, named, rename_inputs, to_graph
from converters.function import module_function
from ondevice import create_model
from ondevice.errors import ConfigError

from ...support.lowered import function_of, stored

# A recipe is no search: no package is made to be weighed.
CHOSEN = {"storage": stored("iOS17"), "size_of": lambda _: pytest.fail("weighed a package")}

SHAPE = (1, 16, 16, 3)
W8 = (Rule("*", "quantize", bits=8),)


class Unlike(nn.Module):
    """A residual stream, attention, a gate and a head, over channels of unlike range.

    What makes a channel large makes it count less behind, as training with weight decay and
    batch norms does, only more so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 2, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, 1, 1, groups=24)
        self.wide = nn.Conv2d(24, 48, 1)
        self.narrow = nn.Conv2d(48, 24, 1)
        self.qkv = nn.Conv2d(8, 24, 1)
        self.gate = nn.Conv2d(24, 24, 1)
        self.proj = nn.Conv2d(24, 24, 1)
        self.last = nn.Conv2d(24, 24, 1)
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 10)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.depthwise(self.stem(x))
        x = x + self.narrow(nn.relu(self.wide(x)))
        y, rest = mx.split(x, [8], axis=-1)
        B, H, W, _ = y.shape
        q, k, v = mx.split(self.qkv(y).reshape(B, H * W, -1), 3, axis=-1)
        y = (mx.softmax(q @ k.swapaxes(1, 2) / 4, axis=-1) @ v).reshape(B, H, W, -1)
        y = nn.relu(mx.concatenate([y, rest], axis=-1))
        y = y * mx.sigmoid(self.gate(y.mean(axis=(1, 2), keepdims=True)))
        x = nn.gelu(self.last(x + self.proj(y)))
        return self.head(self.norm(x)).mean(axis=(1, 2))


@pytest.fixture(scope="module")
def unlike():
    mx.random.seed(0)
    model = Unlike()
    spread = mx.array(np.geomspace(0.1, 30, 24)[np.random.default_rng(0).permutation(24)])
    spread = spread.astype(mx.float32)
    model.stem.weight = model.stem.weight * spread[:, None, None, None]
    model.narrow.weight = model.narrow.weight * spread[:, None, None, None]
    model.proj.weight = model.proj.weight * spread[:, None, None, None]
    for layer in (model.wide, model.last):
        layer.weight = layer.weight / spread
    model.qkv.weight = model.qkv.weight / spread[:8]
    mx.eval(model.parameters())
    return model.eval()


def physical(function):
    graph = to_graph(function)
    function = named(function, graph)
    return lay_out(rename_inputs(graph, function.input_names), function), function


def run(graph, function, inputs):
    names = function.output_names
    plan = compile_function(to_program(graph, names=names, target="iOS17").functions["main"])
    (name,) = function.input_names
    return np.stack([plan.run({name: x})[names[-1]] for x in inputs])


@pytest.fixture(scope="module")
def case(unlike):
    """Graph, function, statistics, inputs, outputs."""
    graph, function = physical(module_function(unlike, mx.zeros(SHAPE)))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(SHAPE).astype(np.float32) for _ in range(16)]
    statistics = measure(calibrate(function, inputs))
    return graph, function, statistics, inputs, run(graph, function, inputs)


@pytest.mark.parametrize("method", EQUALIZATIONS)
def test_an_equalized_graph_computes_what_it_did(case, method):
    graph, function, statistics, inputs, wanted = case
    changed, _ = equalize(graph, statistics, method)
    got = run(changed, function, inputs)
    assert np.abs(got - wanted).max() <= 1e-6 * np.abs(wanted).max()
    (norm,) = (n for n in changed.nodes if n.op == "LayerNorm")
    assert len(norm.inputs) == 3
    same = {k for k, v in graph.constants.items() if np.array_equal(v, changed.constants[k])}
    assert same.isdisjoint(f"{n}.weight" for n in ("stem", "narrow", "wide", "proj", "head"))


@pytest.mark.parametrize("method", EQUALIZATIONS)
def test_equalized_statistics_are_those_of_the_equalized_graph(case, method):
    graph, function, statistics, inputs, _ = case
    changed, equalized = equalize(graph, statistics, method)
    calibration = calibrate(function, inputs)
    constants = in_mlx(calibration.graph, Compression(changed))
    constants = {**calibration.graph.constants, **constants}
    again = measure(replace(calibration, graph=replace(calibration.graph, constants=constants)))
    for path in (
        "depthwise.weight",
        "wide.weight",
        "narrow.weight",
        "qkv.weight",
        "proj.weight",
    ):
        for field in ("moments", "means", "peaks"):
            got, wanted = getattr(equalized[path], field), getattr(again[path], field)
            np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max())


def noise_db(case, method):
    graph, function, _, inputs, wanted = case
    recipe = CompressionRecipe(W8, "mse", equalization=method)
    request = Request(recipe, inputs)
    rounded = compress(graph, function, request, precision="float32", **CHOSEN).graph
    lost = run(rounded, function, inputs) - wanted
    return 10 * np.log10(np.square(wanted).sum() / np.square(lost).sum())


def test_equalization_wins_where_channels_are_unlike(case):
    plain = noise_db(case, "")
    assert noise_db(case, "smooth") > plain + 3
    assert noise_db(case, "repq") > plain + 3


@pytest.fixture(scope="module")
def trained():
    function = function_of(create_model("shvit_nano.cifar10", pretrained=True))
    graph, function = physical(function)
    rng = np.random.default_rng(0)
    inputs = [
        np.array(Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize((96, 96)))
        for _ in range(32)
    ]
    channels = [x[None].transpose(0, 3, 1, 2).astype(np.float32) for x in inputs]
    return graph, function, inputs, channels, run(graph, function, channels)


@pytest.mark.parametrize("method", EQUALIZATIONS)
def test_a_trained_net_computes_what_it_did(trained, method):
    graph, function, inputs, channels, wanted = trained
    changed, _ = equalize(graph, measure(calibrate(function, inputs)), method)
    got = run(changed, function, channels)
    assert np.abs(got - wanted).max() <= 1e-6 * np.abs(wanted).max()


def test_a_trained_net_without_outliers_loses_no_more_when_equalized(trained):
    """Where channels are alike, as here, there is nothing to win: it is about the same."""
    graph, function, inputs, channels, wanted = trained

    def lost(method):
        recipe = CompressionRecipe(W8, "mse", equalization=method)
        request = Request(recipe, inputs[::2])
        rounded = compress(graph, function, request, precision="float16", **CHOSEN)
        return np.square(run(rounded.graph, function, channels[1::2]) - wanted[1::2]).sum()

    assert lost("smooth") < 1.1 * lost("")


def test_what_something_else_reads_keeps_its_channels(unlike):
    graph, _ = physical(module_function(unlike, mx.zeros(SHAPE)))
    channels = Channels(graph)
    layers = {n.inputs[1]: n for n in graph.nodes if n.op in {"Conv", "Linear"}}
    made = {path: channels.of(n.output.name, channels.axis(n)) for path, n in layers.items()}
    stream = made["depthwise.weight"]
    assert (stream == made["narrow.weight"]).all()
    assert (stream == made["proj.weight"]).all()
    assert stream.all()
    assert not made["qkv.weight"][:16].any()  # queries and keys meet in a product
    assert made["qkv.weight"][16:].all()
    for path in ("gate.weight", "last.weight", "head.weight"):  # sigmoid, GELU, output
        assert not made[path].any()


def test_a_norm_without_scale_and_shift_is_no_reader_of_weights():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 8, 1), nn.LayerNorm(8, affine=False)

        def __call__(self, x):
            return self.norm(self.stem(x))

    model = Plain().eval()
    mx.eval(model.parameters())
    graph, function = physical(module_function(model, mx.zeros(SHAPE)))
    (norm,) = (n for n in graph.nodes if n.op == "LayerNorm")
    assert len(norm.inputs) == 1
    inputs = [np.random.default_rng(i).random(SHAPE, np.float32) for i in range(16)]
    changed, _ = equalize(graph, measure(calibrate(function, inputs)), "smooth")
    got, wanted = run(changed, function, inputs), run(graph, function, inputs)
    assert np.abs(got - wanted).max() <= 1e-6 * np.abs(wanted).max()


def test_a_weight_that_two_layers_share_is_left_alone():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

        def __call__(self, x):
            return self.again(nn.relu(self.again(self.first(x))))

    model = Twice().eval()
    mx.eval(model.parameters())
    graph, _ = physical(module_function(model, mx.zeros(SHAPE)))
    channels = Channels(graph)
    assert [channels.absorbs(n) for n in graph.nodes if n.op == "Conv"] == [True, False, False]
    assert not channels.roots.any()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"activations": "mse", "equalization": "evenly"},
            "no equalization 'evenly'; there are smooth",
        ),
        ({"equalization": "smooth"}, "equalization is for eight-bit activations"),
    ],
)
def test_an_equalization_that_cannot_be_is_one_line(values, said):
    with pytest.raises(ConfigError, match=said):
        parse_recipe({"rules": [], **values}, "mine")


def test_the_range_is_chosen_by_what_the_layers_behind_notice():
    """A channel of outliers that nobody reads must not cost the others their precision."""
    values = np.random.default_rng(0).standard_normal((4000, 2))
    values[:, 1] *= 50
    deaf, alike = RANGES["auto"](values, np.array([1.0, 0.0])), RANGES["auto"](values, 1.0)
    assert deaf.scale < 0.4 * alike.scale  # ranges are searched down to 0.3
    for weights in (1.0, np.array([1.0, 0.01])):
        least = RANGES["auto"](values, weights).cost(values, weights)
        for name in ("minmax", "percentile", "mse", "kl"):
            assert least <= RANGES[name](values, weights).cost(values, weights)


def test_a_histogram_alone_does_not_decide_what_is_clipped():
    """Half of what a ReLU gives is zero, and a divergence sees little but that."""
    values = np.maximum(np.random.default_rng(0).standard_normal((20_000, 2)), 0)
    for weights in (1.0, np.array([1.0, 0.01])):
        bound = RANGES["minmax"](values, weights).cost(values, weights)
        assert RANGES["kl"](values, weights).cost(values, weights) <= bound


def test_a_scheme_says_where_it_ends():
    assert symmetric(-1, 2).ends == pytest.approx((-2 * 128 / 127, 2), rel=1e-3)
    assert affine(0, 4).ends == pytest.approx((0, 4), rel=1e-3)
