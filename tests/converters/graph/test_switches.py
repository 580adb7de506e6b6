"""Forms whose speed depends on the chip: other operations, the same numbers."""

from __future__ import annotations

import json
from collections import Counter

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from PIL import Image

from converters import export, export_module, load_package
from ondevice import create_model
from ondevice.cli.export import (
    ATTENTION as CLI_ATTENTION,
    GELU as CLI_GELU,
    INPUTS as CLI_INPUTS,
    PRECISIONS,
    TARGETS,
)
from ondevice.errors import ConfigError
from ondevice.signature.samples import sample_images

from ...support.lowered import as_module


class Heads(nn.Module):
    """An image, a convolution, attention of four heads, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, 4)
        self.attn = nn.MultiHeadAttention(32, 4, bias=True)
        self.head = nn.Linear(32, 5)

    def __call__(self, x):
        x = self.stem(x)
        B, H, W, C = x.shape
        x = nn.gelu(x.reshape(B, H * W, C))
        return self.head(self.attn(x, x, x).mean(axis=1))


X = mx.random.normal((1, 32, 32, 3), key=mx.random.key(5))


@pytest.fixture(scope="module")
def net():
    return as_module(Heads())


def exported(net, path, **settings):
    package = load_package(
        export_module(net, X, path, precision="float32", input_names=["x"], **settings)
    )
    error = np.abs(package.predict({"x": np.array(X)})["output"] - np.array(net(X))).max()
    return Counter(package.operations), error


def test_per_head_attention_is_a_product_for_each_head(net, tmp_path):
    found, error = exported(net, tmp_path / "x.mlpackage", attention="per-head")
    assert found["matmul"] == 8
    assert found["softmax"] == 4
    assert found["concat"] == 1
    assert error < 1e-6


def test_fused_attention_is_one_operation(net, tmp_path):
    settings = {"attention": "fused", "target": "iOS18"}
    found, error = exported(net, tmp_path / "x.mlpackage", **settings)
    assert found["scaled_dot_product_attention"] == 1
    assert found["matmul"] == found["softmax"] == found["mul"] == 0
    assert error < 1e-6


class Masked(nn.Module):
    """Attention whose scores get something: added, or only some of them counted."""

    def __init__(self, mask) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.mask = mask

    def __call__(self, x, *given):
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, 2, 8).transpose(2, 0, 3, 1, 4)
        mask = given[0] if given else self.mask
        y = mx.fast.scaled_dot_product_attention(*qkv, scale=0.3, mask=mask)
        return y.transpose(0, 2, 1, 3).reshape(B, N, 16)


BIAS = 3 * mx.random.normal((2, 10, 10), key=mx.random.key(1))
MASKS = {
    "bias": (BIAS,),
    "bias for all heads": (BIAS[0],),
    "causal": ("causal",),
    "truths": (BIAS > -3,),
    "computed": ("causal", BIAS),
}


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("case", MASKS)
def test_fused_attention_takes_a_mask(case, precision, tmp_path):
    mask, *given = MASKS[case]
    net = as_module(Masked(mask))
    inputs = [mx.random.normal((1, 10, 16), key=mx.random.key(2)), *given]
    options = {"attention": "fused", "target": "iOS18", "precision": precision}
    package = load_package(export_module(net, inputs, tmp_path / "x.mlpackage", **options))
    found = Counter(package.operations)
    assert found["scaled_dot_product_attention"] == 1
    assert found["matmul"] == found["softmax"] == found["select"] == 0
    arrays = dict(zip(package.inputs, map(np.array, inputs), strict=True))
    want = np.array(net(*inputs))
    error = np.abs(package.predict(arrays)["output"] - want).max() / np.abs(want).max()
    assert error < {"float32": 1e-6, "float16": 3e-3}[precision]


@pytest.mark.parametrize("hidden", ["all", "computed"])
def test_a_mask_that_may_hide_everything_stays_outside(hidden, tmp_path):
    net = as_module(Masked(mx.zeros((10, 10), mx.bool_)))
    inputs = [mx.random.normal((1, 10, 16), key=mx.random.key(2))]
    if hidden == "computed":
        net = as_module(lambda x, m, inner=net: inner(x, m > 0))
        inputs.append(-mx.ones((10, 10)))
    options = {"attention": "fused", "target": "iOS18", "precision": "float32"}
    package = load_package(export_module(net, inputs, tmp_path / "x.mlpackage", **options))
    assert package.operations.count("scaled_dot_product_attention") == 0
    arrays = dict(zip(package.inputs, map(np.array, inputs), strict=True))
    want = np.array(net(*inputs))
    assert np.abs(package.predict(arrays)["output"] - want).max() < 1e-6


def test_tanh_gelu_is_near_but_not_equal(net, tmp_path):
    _, exact = exported(net, tmp_path / "a.mlpackage")
    _, tanh = exported(net, tmp_path / "b.mlpackage", gelu="tanh")
    assert exact < 1e-6 < tanh < 1e-3


def test_fused_attention_needs_ios18(net, tmp_path):
    with pytest.raises(ConfigError, match="needs target iOS18"):
        export_module(net, X, tmp_path / "x.mlpackage", attention="fused")


def test_several_sizes_share_their_weights(tmp_path):
    model = create_model("shvit_nano.flowers")
    one = load_package(export(model, tmp_path / "one.mlpackage", target="iOS18"))
    path = export(model, tmp_path / "many.mlpackage", size=[128, 192], target="iOS18")
    many = load_package(path)
    assert many.functions == ["size_128", "size_192"]
    weights = [p.path / "Data/com.apple.CoreML/weights/weight.bin" for p in (one, many)]
    assert weights[1].stat().st_size < 1.05 * weights[0].stat().st_size
    assert json.loads(many.metadata["ondevice.labels"]) == list(model.info.labels)
    assert many.metadata["license"] == "mit"
    image = sample_images(192)[0]
    got = many.predict({"image": image}, function="size_192")["logits"]
    photo = Image.fromarray(sample_images(300)[3])
    levels = many.resize_and_crop(photo, function="size_192")
    assert "logits" in many.predict({"image": levels}, function="size_192")
    alone = export(model, tmp_path / "alone.mlpackage", size=192, target="iOS18")
    assert np.array_equal(got, load_package(alone).predict({"image": image})["logits"])


def test_several_sizes_share_what_was_compressed_by_calibration(tmp_path):
    mx.random.seed(0)  # one block a stage: what is searched is the time this takes
    model = create_model("shvit_nano", num_classes=5, embed_dim=(32, 64, 96), depth=(1, 1, 1))
    options = {
        "target": "iOS18",
        "calibration": [n for s in (96, 112) for n in sample_images(s)],
    }

    def weights(name, **more):
        path = export(model, tmp_path / f"{name}.mlpackage", **options, **more)
        return (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size

    whole = weights("whole", size=96)
    assert weights("eight", size=[96, 128], recipe="w8a8") < 0.55 * whole
    assert weights("searched", size=[96, 128], budget=200_000) < 200_000


def test_several_sizes_need_ios18(tmp_path):
    with pytest.raises(ConfigError, match="need target iOS18"):
        export(create_model("shvit_nano.flowers"), tmp_path / "x.mlpackage", size=[128, 192])


def test_the_command_line_knows_every_choice():
    from converters.backend import PRECISIONS as ALL_PRECISIONS
    from converters.coreml.targets import TARGETS as ALL_TARGETS
    from converters.function import IMAGE_FORMS
    from converters.graph.passes.switches import ATTENTION, GELU

    assert tuple(ATTENTION) == CLI_ATTENTION
    assert tuple(GELU) == CLI_GELU
    assert tuple(IMAGE_FORMS) == CLI_INPUTS
    assert ALL_PRECISIONS == PRECISIONS
    assert ALL_TARGETS == TARGETS
