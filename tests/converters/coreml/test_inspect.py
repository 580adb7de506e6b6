"""The lint on programs written by hand, one row for each rule, and ``inspect`` on packages."""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export_module
from converters.coreml.lint import RULES, lint
from converters.coreml.reader import quiet
from converters.coreml.stored import StoredFunction, StoredOp, TensorType
from converters.verification.inspect import inspect
from ondevice.cli import run
from tests.support.mil import convert, mb, save, save_model

IMAGE = (1, 32, 8, 8)


class Program:
    """A function put together an operation at a time; ``x`` is its float16 input."""

    def __init__(self, x: tuple[int, ...] = IMAGE, dtype: str = "fp16") -> None:
        self.ops: list[StoredOp] = []
        self.types = {"x": TensorType(dtype, x)}
        self.values: dict[str, Any] = {}

    def const(self, value: Any, shape: tuple[int, ...] | None = None) -> str:
        """A constant: its value, or only its shape as of a large one."""
        name = f"c{len(self.ops)}"
        array = np.atleast_1d(0 if value is None else value)
        self.values |= {} if value is None else {name: array}
        self.types[name] = TensorType("fp16", shape or array.shape)
        self.ops.append(StoredOp("const", {}, (name,), {}, ()))
        return name

    def op(self, kind: str, shape=IMAGE, dtype="fp16", weight=None, **inputs: Any) -> str:
        name = f"{kind}{len(self.ops)}"
        if weight:
            inputs["weight"] = self.const(None, weight)
        named = {}
        for parameter, value in ({"x": "x"} | inputs).items():
            several = value if isinstance(value, list) and value[:1] == ["x"] else [value]
            named[parameter] = tuple(
                v if isinstance(v, str) and v in self.types else self.const(v) for v in several
            )
        self.types[name] = TensorType(dtype, shape)
        self.ops.append(StoredOp(kind, named, (name,), {}, ()))
        return name

    def findings(self) -> dict[str, int]:
        function = StoredFunction(tuple(self.ops), self.types, self.values)
        return {f.rule: f.count for f in lint(function)}


def single(kind: str, shape=IMAGE, x=IMAGE, **inputs: Any) -> Program:
    program = Program(x)
    program.op(kind, shape, **inputs)
    return program


def conv(kernel: int = 3, out: int = 32, channels: int = 32, **inputs: Any) -> Program:
    return single("conv", weight=(out, channels, kernel, kernel), **inputs)


def mixed_precision() -> Program:
    program = Program()
    program.op("softmax", dtype="fp32", x=program.op("cast"))
    return program


def cast_input() -> Program:
    program = Program(dtype="fp32")
    program.op("relu", x=program.op("cast"))
    return program


def normalization_in_parts() -> Program:
    program = Program()
    program.op("rsqrt", x=program.op("add", x=program.op("reduce_mean"), y=1e-5))
    return program


def computed_weight() -> Program:
    program = Program()
    program.op("conv", weight_="x", weight=None, x=program.op("relu"))
    program.ops[-1] = StoredOp("conv", {"x": ("x",), "weight": ("relu0",)}, ("y",), {}, ())
    return program


def eight_bits(between: str) -> Program:
    program = Program()
    x = program.op("dequantize", x=program.op("quantize"))
    x = program.op("conv", x=x, weight=(32, 32, 1, 1))
    if between == "activation":
        x = program.op("gelu", x=x)
        program.op("dequantize", x=program.op("quantize", x=x))
    elif between == "levels":
        x = program.op("dequantize", x=program.op("quantize", x=x))
        program.op("gelu", x=x)
    else:
        program.op("conv", x=x, weight=(32, 32, 1, 1))
    return program


def blocks(scale: tuple[int, ...]) -> Program:
    from pathlib import Path

    from converters.coreml.reader import Blob

    program = Program()
    parts = {"data": TensorType("int4", (32, 64)), "scale": TensorType("fp16", scale)}
    blob = Blob(Path("weight.bin"), 0, 1024)
    program.types["w"] = TensorType("fp16", (32, 64))
    kind = "constexpr_blockwise_shift_scale"
    program.ops.append(StoredOp(kind, {}, ("w",), parts, (blob,)))
    program.op("linear", x="x", weight_="w")
    return program


def scores(heads: int) -> Program:
    program = Program()
    shape = (1, heads, 16, 16)
    program.op("softmax", shape, x=program.op("matmul", shape))
    return program


def stored_weight(width: int) -> Program:
    program = blocks((width, 1))
    program.types["w"] = TensorType("fp16", (width, 64))
    return program


# For each rule a program that breaks it, and one that nearly does.
CASES = {
    "rank-above-five": (
        single("reshape", (1, 2, 2, 2, 2, 2)), single("reshape", (1, 2, 2, 2, 2))
    ),
    "rank-five": (single("reshape", (1, 2, 2, 2, 2)), single("reshape", (1, 2, 2, 4))),
    "flexible-shape": (single("relu", (1, 32, -1, 8)), single("relu")),
    "float32-operation": (mixed_precision(), cast_input()),
    "float32-input-or-output": (cast_input(), single("relu")),
    "integer-arithmetic": (
        single("add", (4,), dtype="int32", y=1), single("gather", (4,), dtype="int32", y=1)
    ),
    "dimension-too-large": (
        single("relu", (1, 4, 1, 20_000)), single("relu", (1, 65_536, 1, 16_384))
    ),
    "last-axis-of-one": (single("reshape", (1, 4, 64, 1)), single("reshape", (1, 64, 1, 1))),
    "constant-beyond-float16": (
        single("add", y=np.float32(-np.inf)), single("add", y=np.float32(-4e4))
    ),
    "sum-of-many": (
        single("reduce_sum", (1, 32, 1, 1), x=(1, 32, 32, 32), axes=np.array([2, 3])),
        single("reduce_sum", (1, 1, 32, 32), x=(1, 32, 32, 32), axes=np.array([1])),
    ),
    "transpose-left": (single("transpose", perm=np.array([0, 2, 3, 1])), single("reshape")),
    "linear-as-convolution": (
        single("linear", x=(1, 49, 32), weight=(64, 32)),
        single("linear", x=(1, 32), weight=(64, 32)),
    ),
    "slice-of-last-axis": (
        single("slice_by_index", begin=np.array([0, 0, 0, 2])),
        single("slice_by_index", begin=np.array([0, 0, 2, 0])),
    ),
    "many-branches": (single("concat", values=["x"] * 12), single("concat", values=["x"] * 11)),
    "no-neural-engine-path": (single("topk", k=3), single("reduce_max")),
    "fused-attention": (single("scaled_dot_product_attention"), single("softmax")),
    "heads-side-by-side": (scores(4), scores(1)),
    "small-model": (stored_weight(64), stored_weight(2**15)),
    "decomposed-normalization": (normalization_in_parts(), single("rsqrt")),
    "kernel-too-wide": (conv(14), conv(13)),
    "large-kernel": (conv(9), conv(7)),
    "computed-weight": (computed_weight(), conv()),
    "odd-stride": (conv(strides=np.array([5, 5])), conv(strides=np.array([9, 9]))),
    "dilated-convolution": (conv(dilations=np.array([5, 1])), conv(dilations=np.array([6, 1]))),
    "odd-pool": (
        single("max_pool", kernel_sizes=np.array([3, 3]), strides=np.array([3, 3])),
        single("max_pool", kernel_sizes=np.array([3, 3]), strides=np.array([2, 2])),
    ),
    "odd-padding": (
        single("pad", pad=np.array([1, 1, 0, 0, 0, 0]), mode="constant"),
        single("pad", pad=np.array([0, 0, 1, 1, 1, 1]), mode="constant"),
    ),
    "large-upsampling": (
        single("upsample_bilinear", scale_factor_height=np.array(4.0)),
        single("upsample_bilinear", scale_factor_height=np.array(2.0)),
    ),
    "odd-groups": (conv(channels=4, groups=np.array(8)), conv(channels=1, groups=np.array(32))),
    "channels-not-of-sixteen": (conv(out=40), conv(out=48)),
    "large-operand": (single("relu", (1, 64, 256, 128)), single("relu", (1, 64, 128, 128))),
    "weights-per-block": (blocks((32, 2)), blocks((32, 1))),
    "rounded-twice": (eight_bits("levels"), eight_bits("activation")),
    "float-among-eight-bits": (eight_bits("nothing"), eight_bits("activation")),
}  # fmt: skip


def test_every_rule_has_a_case():
    assert {rule.name for rule in RULES} == CASES.keys()
    assert all(rule.advice and "\n" not in rule.advice for rule in RULES)


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_what_it_is_for_and_no_more(rule):
    broken, fine = CASES[rule]
    assert broken.findings().get(rule) == 1
    assert rule not in fine.findings()


# Packages


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    weight = np.random.default_rng(2).normal(size=(64, 64, 1, 1)).astype(np.float16)

    def body(x):
        x = mb.conv(x=x, weight=weight, name="first")
        x = mb.reshape(x=mb.relu(x=x), shape=[1, 64, 64])
        return mb.transpose(x=x, perm=[0, 2, 1], name="tokens")

    inputs = {"x": ((1, 64, 8, 8), "float16")}
    path = tmp_path_factory.mktemp("inspect") / "net.mlpackage"
    return save(body, inputs, path, precision="float16")


def test_inspect_counts_operations_and_weights(package):
    found = inspect(package)
    assert found.operations == {"conv": 1, "relu": 1, "reshape": 1, "transpose": 1}
    assert (found.operation_count, found.data_moving_count) == (4, 2)
    assert [(w.name, w.shape, w.format, w.bytes) for w in found.weights] == [
        ("first_weight_0", (64, 64, 1, 1), "fp16", 8192)
    ]
    assert found.target == "iOS17"
    assert [(f.name, f.shape) for f in found.inputs] == [("x", (1, 64, 8, 8))]
    assert [f.rule for f in found.findings] == ["transpose-left", "small-model"]


@pytest.mark.parametrize(
    ("target", "options", "format_"),
    [
        ("iOS16", {"mode": "uniform", "nbits": 4}, "4-bit palette"),
        ("iOS18", {"mode": "uniform", "nbits": 3}, "3-bit palette"),
        (
            "iOS18",
            {"mode": "uniform", "nbits": 4, "granularity": "per_grouped_channel",
             "group_size": 16},
            "4-bit palette, 4 tables",
        ),
        ("iOS16", {"mode": "linear_symmetric"}, "int8 per channel"),
        ("iOS18", {"mode": "linear_symmetric", "dtype": "int4"}, "int4 per channel"),
        (
            "iOS18",
            {"mode": "linear_symmetric", "dtype": "int4", "granularity": "per_block",
             "block_size": 32},
            "int4 per block of 32",
        ),
        ("iOS16", {"target_sparsity": 0.75}, "sparse fp16"),
    ],
)  # fmt: skip
def test_a_weights_format_is_named(target, options, format_, tmp_path):
    weight = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float16)
    with quiet():
        import coremltools.optimize.coreml as cto
    kinds = {
        "nbits": (cto.palettize_weights, cto.OpPalettizerConfig),
        "target_sparsity": (cto.prune_weights, cto.OpMagnitudePrunerConfig),
        "mode": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig),
    }
    method, config = next(v for k, v in kinds.items() if k in options)
    model = convert(
        lambda x: mb.linear(x=x, weight=weight, name="y"),
        {"x": ((1, 64), "float16")},
        target=target,
        precision="float16",
    )
    with quiet():
        model = method(model, cto.OptimizationConfig(global_config=config(**options)))
    path = save_model(model, tmp_path / "x.mlpackage")
    stored = next(w for w in inspect(path).weights if w.shape == (64, 64))
    assert (stored.name.startswith("y_weight_0"), stored.format) == (True, format_)
    assert 64 * 64 / 8 < stored.bytes < 64 * 64 * 2


def test_the_command_prints_tables_and_json(package, capsys):
    assert run(["inspect", str(package), "--weights"]) == 0
    text = capsys.readouterr().out
    assert "4 operations, 2 only move data (50%)" in text
    (line,) = (line for line in text.splitlines() if line.startswith("first_weight_0"))
    assert line.split() == ["first_weight_0", "[64,", "64,", "1,", "1]", "fp16", "8,192"]
    assert "transpose-left (x1)" in text
    assert run(["inspect", str(package), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["operation_count"] == 4
    assert found["findings"][0]["rule"] == "transpose-left"


def test_a_package_without_weights_is_said_to_have_none(tmp_path, ondevice_):
    path = export_module(nn.ReLU(), mx.zeros((1, 4)), tmp_path / "relu.mlpackage")
    status, out, _ = ondevice_("inspect", path)
    assert (status, "\nno weights\n" in out, "bytes" in out) == (0, True, False)


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    assert run(["inspect", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}: does not end in .mlpackage")
    assert error.count("\n") == 1
