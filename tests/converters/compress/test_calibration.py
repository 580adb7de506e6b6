"""What sample inputs say of layers, and of the range of each value."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export
from converters.compress import calibrate as calibrate_module
from converters.compress.activations import RANGES, Range, mse, range_of
from converters.compress.apply import Compression, compress_graph
from converters.compress.calibrate import calibrate, layers, measure
from converters.compress.plan import in_mlx
from converters.compress.recipe import CompressionRecipe, Rule
from converters.graph.evaluate import evaluate
from ondevice import create_model
from ondevice.errors import ConfigError, ImageError

from ...support.lowered import stored
from .odd import SHAPE, exported, physical, specified


def test_statistics_come_from_every_sample_in_any_order(odd, samples):
    """coremltools 9.0 keeps the range of the last sample only."""
    loud = [*samples[:8], *(x * 9 for x in samples[8:])]
    _, function = physical(odd)
    first, second = (measure(calibrate(function, x)) for x in (loud, loud[::-1]))
    for path, found in first.items():
        np.testing.assert_allclose(found.moments, second[path].moments, rtol=1e-5, atol=1e-5)
    assert first["stem.weight"].values.max() == pytest.approx(np.max(loud), rel=1e-6)


@pytest.mark.parametrize("places", [calibrate_module._POSITIONS, 12 * 12])
def test_statistics_are_of_what_a_channels_first_weight_meets(
    odd, samples, places, monkeypatch
):
    """For every layer: W H W^T is the mean square of the layer's output before its bias."""
    monkeypatch.setattr(calibrate_module, "_POSITIONS", places)
    graph, function = physical(odd)
    calibration = calibrate(function, samples)
    found = measure(calibration)
    nodes = dict(layers(calibration.graph))
    assert nodes.keys() == found.keys() == {
        "stem.weight", "depthwise.weight", "wide.weight", "grouped.weight", "qkv.weight",
        "head.weight",
    }  # fmt: skip
    outputs = outputs_of(calibration, nodes.values())
    for path, statistics in found.items():
        y, groups = outputs[nodes[path].output.name], len(statistics.means)
        if nodes[path].op == "Convolution":  # of large maps only some places count
            y = y[:, :: max(1, y.shape[1] // places)]
        rows = graph.constants[path].reshape(groups, -1, statistics.means.shape[1])
        wanted = np.square(y).mean(axis=(0, 1)).reshape(groups, -1)
        got = ((rows @ statistics.moments) * rows).sum(axis=-1)
        np.testing.assert_allclose(got, wanted, rtol=5e-5, err_msg=path)
        means = np.einsum("gok,gk->go", rows, statistics.means)
        wanted = y.mean(axis=(0, 1)).reshape(groups, -1)
        np.testing.assert_allclose(means, wanted, atol=1e-6 * y.std(), err_msg=path)


def outputs_of(calibration, nodes):
    """What each layer gives for all samples, before its bias: (samples, places, channels)."""
    constants, found = calibration.graph.constants, {}
    for node in nodes:
        name = node.output.name
        bias = constants[node.inputs[2]] if len(node.inputs) > 2 else 0
        parts = [
            np.array(evaluate(calibration.graph, *batch, keep=[name])[name], np.float64) - bias
            for batch in calibration.batches
        ]
        found[name] = np.concatenate([y.reshape(len(y), -1, y.shape[-1]) for y in parts])
    return found


def test_biases_make_up_for_the_mean(odd, samples):
    graph, function = physical(odd)
    statistics = measure(calibrate(function, samples))
    recipe = CompressionRecipe((Rule("*", "palettize", bits=2, rounding="nearest"),))
    result = compress_graph(graph, recipe, storage=stored("iOS17"), statistics=statistics)
    means = statistics["head.weight"].means[0]
    before, after = (
        g.constants["head.weight"] @ means + g.constants["head.bias"]
        for g in (graph, result.graph)
    )
    np.testing.assert_allclose(before, after, atol=1e-6)


def test_compressed_weights_go_back_to_mlxs_layout(odd, samples):
    graph, function = physical(odd)
    calibration = calibrate(function, samples)
    untouched = in_mlx(calibration.graph, Compression(graph))
    assert len(untouched) == 11
    for name, value in untouched.items():
        np.testing.assert_array_equal(value, calibration.graph.constants[name])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([], "needs calibration samples"),
        ([np.ones(SHAPE, np.float32)] * 3, "give 8 or more"),
        ([np.zeros(SHAPE, np.float32)] * 9, "one value everywhere"),
        ([np.ones((1, 5, 5, 3), np.float32)] * 9, "is expected; given"),
    ],
)
def test_calibration_that_says_nothing_is_refused(odd, tmp_path, bad, said):
    with pytest.raises(ConfigError, match=said):
        exported(odd, tmp_path / "a.mlpackage", recipe="w8a8", calibration=bad)
    assert not list(tmp_path.iterdir())


def test_pictures_that_cannot_be_read_are_named(tmp_path):
    model = create_model("shvit_nano.cifar10", pretrained=True)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    paths = [tmp_path / "broken.jpg", tmp_path / "missing.jpg"]
    with pytest.raises(ImageError, match=r"broken\.jpg.*missing\.jpg"):
        export(model, tmp_path / "a.mlpackage", recipe="int8", calibration=paths)
    assert not (tmp_path / "a.mlpackage").exists()


# Activations.


def test_activations_are_rounded_in_front_of_layers_only(odd, samples, tmp_path):
    package, _ = exported(odd, tmp_path / "a.mlpackage", recipe="w8a8", calibration=samples)
    made = {o.name: op for op in specified(package) for o in op.outputs}

    def source(op, name):
        return made.get(op.inputs[name].arguments[0].name)

    rounded = [op for op in specified(package) if op.type == "dequantize"]
    assert rounded
    for op in specified(package):
        if op.type in {"gelu", "relu", "softmax", "add", "matmul", "layer_norm"}:
            inputs = [
                source(op, k) for k in op.inputs if op.inputs[k].arguments[0].name in made
            ]
            assert not [i for i in inputs if i is not None and i.type == "dequantize"]
        if op.type == "conv":
            assert source(op, "x").type == "dequantize"
    assert all(source(op, "input").type == "quantize" for op in rounded)


def test_a_residual_read_by_two_layers_is_rounded_once(samples, tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 96, 1), nn.Conv2d(3, 96, 1)

        def __call__(self, x):
            return self.a(x) + self.b(x)

    model = Two().eval()
    mx.eval(model.parameters())
    package, _ = exported(model, tmp_path / "a.mlpackage", recipe="w8a8", calibration=samples)
    assert package.operations.count("quantize") == 1


@pytest.mark.parametrize("method", RANGES)
def test_a_range_rounds_a_bell_to_within_a_percent(method):
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    found = RANGES[method](values)
    assert np.square(values - found.rounded(values)).mean() < 1e-3


def test_a_range_without_outliers_is_finer():
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    values[0] = 60
    least = mse(values)
    assert (
        np.square(values - least.rounded(values)).sum()
        <= np.square(values - RANGES["minmax"](values).rounded(values)).sum()
    )
    assert RANGES["percentile"](values).scale < range_of(-4, 60).scale / 6


def test_what_is_never_negative_uses_all_codes():
    found = range_of(0, 2.55)
    assert found == Range(pytest.approx(0.01, rel=1e-2), -128)
    assert found.rounded(np.array([0.0, 2.55])) == pytest.approx([0, 2.55], rel=1e-2)


def test_a_model_that_gives_nan_on_the_samples_is_refused(samples, tmp_path):
    """NaN is sorted last and compared falsely: formats would be chosen by chance."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Logarithm(), nn.Conv2d(8, 16, 3)).eval()
    with pytest.raises(ConfigError, match=r"1 of 2 layers read NaN.*layers\.2\.weight first"):
        exported(net, tmp_path / "a.mlpackage", recipe="int8", calibration=samples)


class Logarithm(nn.Module):
    def __call__(self, x):
        return mx.log(x)
