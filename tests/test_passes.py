"""Passes keep the meaning of a graph and do what they are for."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters.evaluate import evaluate
from converters.graph import Graph, Node, Value
from converters.passes import PASSES, run_passes
from converters.passes.broadcasts import drop_broadcasts
from converters.passes.dead_code import remove_dead_code
from converters.trace import trace
from ondevice import create_model, fuse
from ondevice.errors import ConfigError

from .lowered import as_module, ops

X = mx.random.normal((1, 8, 8, 6), key=mx.random.key(0))


def value(name: str, *shape: int) -> Value:
    return Value(name, shape)


def raised(layer, x=X) -> list[str]:
    return [n.op for n in run_passes(trace(as_module(layer), x)).nodes]


@pytest.fixture
def bias_add() -> Graph:
    return Graph(
        inputs=(value("x", 1, 4, 4, 8),),
        outputs=("y",),
        constants={"bias": np.ones(8, np.float32)},
        nodes=(
            Node("Broadcast", ("bias",), (value("b", 1, 4, 4, 8),), ((1, 4, 4, 8),)),
            Node("Add", ("x", "b"), (value("y", 1, 4, 4, 8),)),
        ),
    ).check()


@pytest.mark.parametrize("run", PASSES, ids=lambda p: p.__name__)
def test_every_pass_keeps_the_outputs(run):
    model = fuse(create_model("shvit_nano.flowers"))
    x = mx.random.normal((1, 64, 64, 3), key=mx.random.key(2))
    graph = trace(model, x)
    for earlier in PASSES:
        before = evaluate(graph, x)[graph.outputs[0]]
        graph = earlier(graph).check()
        if earlier is run:
            after = evaluate(graph, x)[graph.outputs[0]]
            assert mx.abs(after - before).max() < 1e-5 * mx.abs(before).max()
            break


def test_drop_broadcasts_reads_the_operand_directly(bias_add):
    graph = remove_dead_code(drop_broadcasts(bias_add))
    assert str(graph) == "y:float32[1, 4, 4, 8] = Add(x, bias)"


def test_a_broadcast_that_gives_the_result_its_shape_stays(bias_add):
    widen = Node("Broadcast", ("bias",), (value("c", 1, 4, 4, 8),), ((1, 4, 4, 8),))
    both = Node("Add", ("b", "c"), (value("y", 1, 4, 4, 8),))
    graph = bias_add.with_nodes([bias_add.nodes[0], widen, both])
    assert drop_broadcasts(graph).nodes[-1] == both


def test_check_names_the_node_that_uses_an_undefined_value(bias_add):
    with pytest.raises(ValueError, match=r"Add uses undefined \['b'\]"):
        bias_add.with_nodes(bias_add.nodes[1:]).check()


@pytest.mark.parametrize(
    ("layer", "op"),
    [
        (nn.ReLU(), "Relu"),
        (nn.ReLU6(), "Relu6"),
        (nn.GELU(), "Gelu"),
        (nn.GELU("tanh"), "GeluTanh"),
        (nn.GELU("fast"), "GeluSigmoid"),
        (nn.SiLU(), "Silu"),
        (nn.Hardswish(), "HardSwish"),
        (nn.LeakyReLU(0.3), "LeakyRelu"),
        (nn.LayerNorm(6), "LayerNorm"),
        (nn.MaxPool2d(2, 2), "Pool"),
        (nn.AvgPool2d(3, 1, 1), "Pool"),
        (nn.Upsample(2), "Resize"),
        (nn.Linear(6, 4), "Linear"),
        (nn.Conv2d(6, 4, 3), "Convolution"),
    ],
)
def test_one_layer_becomes_one_node(layer, op):
    assert raised(layer) == [op]


def test_an_intermediate_used_elsewhere_is_not_swallowed():
    def shared_erf(x):
        erf = mx.erf(x / math.sqrt(2))
        return x * (1 + erf) / 2 + erf  # a GELU, but for the last term

    assert "Gelu" not in raised(shared_erf)


def test_the_epsilon_is_captured():
    [node] = run_passes(trace(as_module(nn.LayerNorm(6, eps=1e-3)), X)).nodes
    assert node.args == ((3,), pytest.approx(1e-3))


class ConvBNScale(nn.Module):
    """What a user who never heard of ``fuse`` writes."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.before, self.conv = nn.BatchNorm(6), nn.Conv2d(6, 8, 3, padding=padding)
        self.after, self.gamma = nn.BatchNorm(8), mx.random.normal((8,))
        for norm, n in ((self.before, 6), (self.after, 8)):
            norm.running_mean, norm.bias = mx.random.normal((2, n))
            norm.running_var, norm.weight = mx.random.uniform(0.5, 2, (2, n))

    def __call__(self, x):
        return self.gamma * self.after(self.conv(self.before(x)))


def test_norms_and_scales_around_a_convolution_fold_into_it():
    assert raised(ConvBNScale(padding=0)) == ["Convolution"]


def test_a_shift_before_padding_stays_but_its_scale_folds():
    module = as_module(ConvBNScale(padding=1))
    graph = run_passes(trace(module, X))
    affine, conv = graph.nodes
    assert (affine.op, conv.op) == ("Affine", "Convolution")
    assert (graph.constants[affine.inputs[1]] == 1).all()
    got = evaluate(graph, X)[graph.outputs[0]]
    assert mx.abs(got - module(X)).max() < 1e-5


def test_weights_keep_their_paths_through_all_passes():
    model = fuse(create_model("shvit_nano"))
    graph = run_passes(trace(model, mx.zeros((1, 64, 64, 3))))
    layers = [n for n in graph.nodes if n.op in {"Convolution", "Linear"}]
    paths = {name for name, _ in nn.utils.tree_flatten(model.parameters())}
    assert len(layers) == 63
    assert all(n.inputs[1] in paths for n in layers)


def test_convolutions_leave_no_transposes_between_them():
    net = nn.Sequential(
        nn.Conv2d(6, 8, 3),
        nn.GELU(),
        nn.Conv2d(8, 8, 3),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(8, 4, 1),
    )
    assert ops(net, X)["Transpose"] == 2  # in from NHWC, out to NHWC


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ConfigError, match="eval mode"):
        trace(nn.Linear(6, 4).train(), X)


def test_tracing_leaves_the_model_usable():
    conv = as_module(nn.Conv2d(6, 4, 3))
    before = conv(X)
    trace(conv, X)
    assert mx.array_equal(conv(X), before)
