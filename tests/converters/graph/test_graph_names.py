"""Parameters, MLX's own values, inputs and outputs: no name of one is taken for another's."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export_module, load_package
from ondevice.errors import ConfigError

from ...support.lowered import as_module

X = mx.random.normal((2, 8), key=mx.random.key(0))


def normal(*shape):
    return mx.random.normal(shape)


class LoRA(nn.Module):
    """Parameters called as MLX calls its values, and as inputs and steps are called."""

    def __init__(self):
        super().__init__()
        self.A, self.B = normal(8, 4), normal(4, 8)
        self.input = normal(8)
        self.a_b, self.mul_0, self.list = normal(20, 8), normal(8, 20), normal(8, 8)
        self.a = nn.Linear(8, 8)
        self.a.b = normal(8, 20)

    def __call__(self, x):
        x = x + (x @ self.A) @ self.B + self.input
        return mx.log2(1 + mx.abs(x @ self.a.b @ self.a_b)) @ self.list, x @ self.mul_0


class OwnBias(nn.Module):
    """A ``bias`` that is not the bias of what ``weight`` multiplies."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias, self.scale, self.shift = normal(8, 8), *normal(3, 8)

    def __call__(self, x):
        return nn.relu(x @ self.weight.T * self.scale + self.shift) + self.bias


class Before(OwnBias):
    """The same for what comes before the product."""

    def __call__(self, x):
        return nn.relu((x * self.scale + self.shift) @ self.weight.T) + self.bias


def assert_exported(module, path, inputs, **options):
    module = as_module(module)
    package = load_package(export_module(module, inputs, path, precision="float32", **options))
    given = dict(zip(package.inputs, map(np.array, inputs), strict=True))
    got, wanted = package.predict(given), module(*inputs)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for ours, theirs in zip(got.values(), map(np.array, wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)
    return list(package.inputs), list(package.outputs)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([], []),
        (["A"], ["B", "C"]),
        (["a_b"], ["a_weight", "mul_0"]),
        (["x"], ["step_log", "linear"]),
        (["weight"], ["log", "const_0"]),
    ],
)
def test_a_parameter_may_be_called_as_anything_else_is(tmp_path, inputs, outputs):
    names = assert_exported(
        LoRA(), tmp_path / "x.mlpackage", [X], input_names=inputs, output_names=outputs
    )
    assert names == (inputs or ["input"], outputs or ["output_0", "output_1"])


@pytest.mark.parametrize("module", [OwnBias, Before])
def test_a_folded_shift_takes_no_other_parameters_name(tmp_path, module):
    assert_exported(module(), tmp_path / "x.mlpackage", [X])


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        (["x"], ["a-b", "a_b"], "'a-b', 'a_b' would all be called 'a_b'"),
        (["x"], ["y", "y"], "'y', 'y' would all be called 'y'"),
        (["x"], ["x", "y"], "'x', 'x' would all be called 'x'"),
        (["x"], ["", "y"], "an input or output without a name"),
        ([""], ["y", "z"], "an input or output without a name"),
        (["x"], ["y"], "1 output names for 2 outputs"),
        (["x", "y"], ["a", "b"], "2 input names for 1 input"),
    ],
)
def test_names_that_meet_are_refused(tmp_path, inputs, outputs, said):
    path = tmp_path / "x.mlpackage"
    with pytest.raises(ConfigError, match=said):
        export_module(as_module(LoRA()), X, path, input_names=inputs, output_names=outputs)
    assert not any(tmp_path.iterdir())


def test_a_name_that_core_ml_cannot_take_is_changed_and_said(tmp_path, caplog):
    names = assert_exported(
        LoRA(), tmp_path / "x.mlpackage", [X], input_names=["x y"], output_names=["17", "list"]
    )
    assert names == (["x_y"], ["var_17", "list_"])
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(" in the")[0] for line in said] == [
        "'x y' is called 'x_y'",
        "'17' is called 'var_17'",
        "'list' is called 'list_'",
    ]
