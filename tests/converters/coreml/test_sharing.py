"""What packages spend on names, on small constants, and on what they say twice."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export, export_module, load_package
from converters.coreml.sharing import small_constants_inline
from ondevice import create_model

SHAPE = (1, 16, 16, 3)


class Numbered(nn.Module):
    """Layers that are called as shared constants are."""

    def __init__(self) -> None:
        super().__init__()
        self.c0 = nn.Conv2d(3, 16, 3, padding=1)
        self.c1 = nn.Conv2d(16, 16, 3, 2)
        self.c2 = nn.Linear(16, 7)

    def __call__(self, x: mx.array) -> mx.array:
        return self.c2(nn.relu(self.c1(nn.relu(self.c0(x)))).mean(axis=(1, 2)))


def stored(path):
    block = load_package(path).saved.spec.mlProgram.functions["main"].block_specializations
    return next(iter(block.values())).operations


@pytest.mark.parametrize("recipe", ["", "int8"])
def test_a_layer_may_be_called_as_a_constant_is(recipe, tmp_path):
    mx.random.seed(0)
    model = Numbered().eval()
    path = export_module(model, mx.zeros(SHAPE), tmp_path / "a.mlpackage", recipe=recipe)
    outputs = [o.name for op in stored(path) for o in op.outputs]
    assert len(outputs) == len(set(outputs))
    assert {"c0_weight", "c0", "c1_weight", "c1", "c2_weight"} <= set(outputs)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    (found,) = load_package(path).predict({"input": x}).values()
    np.testing.assert_allclose(found, np.array(model(mx.array(x))), atol=1e-3)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    model = create_model("shvit_nano.flowers", pretrained=True)
    folder = tmp_path_factory.mktemp("sharing")
    return {
        recipe: export(model, folder / f"a{recipe}.mlpackage", recipe=recipe)
        for recipe in ("", "int8", "palette6")
    }


@pytest.mark.parametrize("recipe", ["", "int8", "palette6"])
def test_a_path_is_written_for_weights_only(packages, recipe):
    constants = [op for op in stored(packages[recipe]) if op.type.startswith("const")]
    names = [op.attributes["name"].immediateValue.tensor.strings.values[0] for op in constants]
    ours = [n for n in names if "cast" not in n]  # coremltools' own, for the classifier
    assert len(ours) == len(set(ours)) > 100
    assert max(map(len, ours)) <= 4
    outputs = [op.outputs[0].name for op in constants]
    assert sum(n.endswith("_weight") for n in outputs) == 63
    assert not any(n.endswith("_bias") for n in outputs)


@pytest.mark.parametrize("recipe", ["int8", "palette6"])
def test_kernels_of_a_few_hundred_bytes_are_not_in_the_weight_file(packages, recipe):
    sizes = [
        value.immediateValue.tensor.ByteSize()
        for op in stored(packages[recipe])
        for value in op.attributes.values()
        if op.type.startswith("constexpr") and value.HasField("immediateValue")
    ]
    assert max(sizes) > 1000


@pytest.mark.parametrize("recipe", ["", "int8", "palette6"])
def test_a_weight_is_listed_wherever_it_lies(packages, recipe):
    found = load_package(packages[recipe]).weights
    assert sum(name.endswith("_weight") for name in found) == 63
    small = found["stages_0_blocks_0_conv_weight"]  # 64 depthwise kernels of 3 by 3
    scales = {"": 0, "int8": 64 * 2 + 1 + 4, "palette6": 64 * 2 + 4 * 4}[recipe]
    codes = {"": 576 * 2, "int8": 576, "palette6": 576 * 6 // 8}[recipe]
    assert small.bytes == codes + scales


def test_what_coremltools_keeps_inline_is_replaced_for_as_long_as_asked():
    """The contract with coremltools: what it asks, how, and that it asks this module."""
    from coremltools.converters.mil.backend.mil import load

    small, large = np.zeros(1024, np.float16), np.zeros(1025, np.float16)
    asks = load.should_use_weight_file
    assert asks(small)
    with small_constants_inline():
        assert not load.should_use_weight_file(small)
        assert not load.should_use_weight_file(small, 9)
        assert load.should_use_weight_file(large)
    assert load.should_use_weight_file is asks
    with pytest.raises(ZeroDivisionError), small_constants_inline():
        _ = 1 / 0
    assert load.should_use_weight_file is asks
    maker = load.MILProtoExporter
    assert any("should_use_weight_file" in code.co_names for code in _codes(maker))


def _codes(cls):
    functions = (getattr(f, "__func__", f) for f in vars(cls).values())
    return [f.__code__ for f in functions if hasattr(f, "__code__")]
