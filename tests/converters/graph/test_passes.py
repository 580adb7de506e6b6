"""Passes keep the meaning of a graph and do what they are for."""

from __future__ import annotations

import math
from functools import cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters.graph.evaluate import evaluate
from converters.graph.graph import Graph, Node, Value
from converters.graph.passes import PASSES, run_passes
from converters.graph.passes.broadcasts import drop_broadcasts
from converters.graph.passes.dead_code import remove_dead_code
from converters.graph.trace import trace
from ondevice import create_model, fuse

from ...support import clips
from ...support.lowered import as_module, assert_lowered, ops
from .test_samples import border

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


class Foreign(nn.Module):
    """Layers and habits that our models do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = [nn.BatchNorm(8), nn.GroupNorm(2, 8), nn.LayerNorm(8)]
        self.pools = [nn.Identity(), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 2)]
        self.mix, self.up = nn.Linear(8, 8), nn.Upsample(2)
        self.before, self.last = nn.BatchNorm(8), nn.Conv2d(8, 5, 3, padding=1)

    def __call__(self, x):
        x = self.stem(x)
        for pool, norm in zip(self.pools, self.norms, strict=True):
            x = nn.gelu(norm(pool(x)))
        x = (self.mix(x).reshape(1, -1, 8) * 0.5).reshape(x.shape)  # a factor between moves
        x = self.last(self.before(self.up(x)))  # a norm in front of a padded convolution
        return x.transpose(0, 3, 1, 2).transpose(0, 3, 1, 2)


class Windows(nn.Module):
    """Rows reordered, attention in windows of six axes; resized, sampled, shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)
        self.attention = nn.MultiHeadAttention(8, 2)

    def __call__(self, x):
        x = self.patch(x)[:, mx.arange(15, -1, -1)]
        B, H, W, C = x.shape
        x = x.reshape(B, H // 4, 4, W // 4, 4, C).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, 16, C)
        x = self.attention(x, x, x).reshape(B, H // 4, W // 4, 4, 4, C)
        x = nn.Upsample(1.5, "linear")(x.transpose(0, 1, 3, 2, 4, 5).reshape(B, H, W, C))
        x = self.head(border(x, mx.tanh(x[..., :2]))).reshape(B, 24, 24, 2, 2, 2)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, 48, 48, 2)


class Written(nn.Module):
    """Writes to parts, turns by complex numbers, counts in bits, and reads one element."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.turn = nn.Conv2d(3, 8, 3, 2, 1), 1j * mx.arange(4.0)
        self.sharp = 0.1 * mx.random.normal((8, 3, 3, 8))

    def __call__(self, x):
        x = self.stem(mx.pad(x, [(0, 0), (1, 2), (0, 3), (0, 0)], mode="edge"))
        x = x + mx.conv_general(x, self.sharp, 2, ([1, 1], [1, 1]), input_dilation=2)
        x[:, 3:9, :, 1::2] = 0.5 * x[:, :6, :, :4]
        x[mx.arange(x.size).reshape(x.shape) % 5 == 0] = mx.tanh(x).reshape(-1)
        pairs = mx.view(x.reshape(*x.shape[:-1], 4, 2), mx.complex64)[..., 0]
        turned = mx.real(pairs * mx.exp(self.turn))
        turned = turned.at[:, mx.array([1, 2])].add(0.5)
        order = mx.argsort(turned[0, :, 0, 0]) << 1 >> 1
        order = order[mx.argsort(mx.floor(order) > 3)]
        scale = mx.tanh(mx.diag(mx.ones(4)) @ turned[0, 0, 0]).max() + x[0, 1, 2, 3]
        return turned[:, order] * (1 + 0.1 * mx.tanh(scale * 2))


SMALL = {"embed_dim": (16, 16, 32, 32), "depth": (1, 1, 1, 1), "num_classes": 7}
WIDE = {"embed_dim": (16, 16, 32, 32, 64), "depth": (1, 1, 1, 1, 1), "num_classes": 7}
VIT = {"embed_dim": 64, "depth": 2, "heads": 2, "img_size": 64, "num_classes": 7}
PICTURE = mx.random.normal((1, 64, 64, 3), key=mx.random.key(2))
FAMILIES = {  # of each a small model, and of others' networks one
    "shvit": (lambda: create_model("shvit_nano", num_classes=7), PICTURE),
    "efficientvit": (lambda: create_model("efficientvit_m0", img_size=64), PICTURE),
    "fastvit": (lambda: create_model("fastvit_sa12", **SMALL), PICTURE),
    "mobileclip": (lambda: create_model("fastvit_mci0", **SMALL), PICTURE),
    "fastvithd": (lambda: create_model("fastvit_mci3", **WIDE), PICTURE),
    "text": (lambda: clips.towers()[1], mx.arange(77)[None] % clips.VOCAB),
    "vit": (lambda: create_model("vit_base_mci_224", **VIT), PICTURE),
    "foreign": (lambda: Foreign().eval(), PICTURE),
    "windows": (lambda: Windows().eval(), PICTURE),
    "written": (lambda: Written().eval(), PICTURE),
}
FORMS = {"plain": lambda model: model, "fused": fuse}
ROUNDING = 1e-5  # of the spread; up to 3.4e-6: batch norms folded into EfficientViT


@cache
def walk(family: str, form: str) -> tuple[list[float], list[bool]]:
    """For each of PASSES at its place: by how much it moves the outputs of the graph that it
    is given, and whether it changes that at all. First, the trace beside the model."""
    make, x = FAMILIES[family]
    model = FORMS[form](clips.scrambled(make(), 3))
    graph, before = trace(model, x), model(x)
    moved, changed = [], []
    for run in (lambda graph: graph, *PASSES):
        given, graph = str(graph), run(graph).check()
        after = evaluate(graph, x)[graph.outputs[0]]
        assert after.shape == before.shape
        moved.append((mx.abs(after - before).max() / mx.std(before)).item())
        changed.append(str(graph) != given)
        before = after
    return moved, changed


NUMBERED = [f"{i} {run.__name__}" for i, run in enumerate(PASSES, start=1)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_pass_at_its_place_keeps_the_outputs(family, form):
    moved, _ = walk(family, form)
    errors = dict(zip(["0 trace", *NUMBERED], moved, strict=True))
    assert all(error < ROUNDING for error in errors.values()), errors


@pytest.mark.parametrize("name", NUMBERED)
def test_every_pass_has_something_to_do_at_its_place(name):
    """Else the test above says nothing of it."""
    place = NUMBERED.index(name) + 1
    assert any(walk(family, form)[1][place] for family in FAMILIES for form in FORMS)


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
        (lambda x: x.sum((1, 2)) / 64, "Reduce"),
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
    assert mx.abs(got - module(X)).max() < 4e-6


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


def test_tracing_leaves_the_model_usable():
    conv = as_module(nn.Conv2d(6, 4, 3))
    before = conv(X)
    trace(conv, X)
    assert mx.array_equal(conv(X), before)


def test_a_matrix_added_to_a_product_leaves_its_constant_as_it_is():
    weight, other = mx.random.normal((8, 5)), mx.random.normal((6, 5))
    mx.eval(weight, other)
    assert_lowered(lambda x: mx.addmm(other, x, weight), mx.random.normal((6, 8)))
