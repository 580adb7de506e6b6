"""Tracing sees every call alike and leaves a module as it was."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export_module, load_package
from converters.graph.evaluate import evaluate
from converters.graph.passes import run_passes
from converters.graph.trace import trace
from ondevice.errors import ConfigError, UnsupportedOpError

from ...support.lowered import as_module, assert_lowered, ops

X = mx.random.normal((2, 8), key=mx.random.key(0))


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.n = 0

    def __call__(self, x):
        self.n += 1
        return x * self.n


class Memory(nn.Module):
    """Gives the mean of what it was ever given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __call__(self, x):
        self.seen.append(x)
        return sum(self.seen) / len(self.seen) + len(self.seen)


class Running(nn.Module):
    """Changes an array of its own."""

    def __init__(self):
        super().__init__()
        self.mean = mx.zeros(8)

    def __call__(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=0)
        return x - self.mean


class Noise(nn.Module):
    def __call__(self, x):
        return x + mx.random.normal(x.shape)


class Cache(nn.Module):
    """Makes a table when it is first called, and remembers its last result."""

    def __init__(self):
        super().__init__()
        self.inner, self._table = nn.Linear(8, 8), None
        self.inner.parts = [{"last": None}]

    def __call__(self, x):
        if self._table is None:
            self._table = mx.arange(8) * 2.0
        self.last = self.inner(x) + self._table
        self.inner.parts[0]["last"] = self.last
        return self.last


@pytest.mark.parametrize("module", [Counter, Memory, Running, Noise])
def test_a_module_that_computes_something_else_each_time_is_refused(module, tmp_path):
    net = module().eval()
    before = net.parameters()
    with pytest.raises(ConfigError, match="when it is called a second time"):
        export_module(net, X, tmp_path / "x.mlpackage")
    assert not any(tmp_path.iterdir())
    assert net.parameters() == before
    assert getattr(net, "n", 0) == 0
    assert getattr(net, "seen", []) == []


def test_no_placeholder_stays_behind():
    net = Cache().eval()
    mx.eval(net.parameters())
    wanted = net(X)
    for made in (net, Cache().eval()):
        made.inner = net.inner
        attributes = dict(vars(made)), dict(made), list(made.inner.parts)
        trace(made, X)
        assert (dict(vars(made)), dict(made), list(made.inner.parts)) == attributes
        assert mx.array_equal(made(X), wanted)


def test_arrays_of_the_callers_keep_their_elements():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self._private, self.parts = mx.ones(8), mx.ones(8), [mx.ones(8)]
            self.helper = SimpleNamespace(table=mx.ones(8), seen=None)
            self._pair = (mx.ones(8), [(mx.ones(8),)])

        def __call__(self, x):
            pair = (self._pair[0], self._pair[1][0][0])
            for array in (self.table, self._private, self.parts[0], self.helper.table, *pair):
                array[0] = 2.0
                x = x * array
            self.helper.seen = x
            return x

    net = Overwriting().eval()
    trace(net, X)
    assert net.helper.seen is None
    pair = (net._pair[0], net._pair[1][0][0])
    for array in (net.table, net._private, net.parts[0], net.helper.table, *pair):
        assert mx.array_equal(array, mx.ones(8))
    assert net(X).shape == X.shape


SHARED, SEEN, LAST, CALLS = mx.ones(8), {}, None, 0


class Slots:
    __slots__ = ("late", "table")

    def __init__(self):
        self.table = mx.ones(8)


class Global(nn.Module):
    """Writes to what is not its own, and to objects without a dictionary."""

    def __init__(self):
        super().__init__()
        self.slots = Slots()

    def __call__(self, x):
        global LAST, CALLS
        SHARED[0] = x[0, 0]
        self.slots.table[1] = x[0, 1]
        self.slots.late = SEEN["last"] = LAST = x * SHARED * self.slots.table
        CALLS += 1
        return x + 1


def test_globals_and_slots_are_left_as_they_were(caplog):
    net, shared = Global().eval(), SHARED
    table = net.slots.table
    trace(net, X)
    assert SHARED is shared
    assert net.slots.table is table
    assert mx.array_equal(SHARED, mx.ones(8))
    assert mx.array_equal(table, mx.ones(8))
    assert not hasattr(net.slots, "late")
    assert (SEEN, LAST, CALLS) == ({}, None, 0)
    assert "CALLS changes with every call of Global" in caplog.text


class Third(nn.Module):
    """Is another from its third call on, or from its hundredth."""

    def __init__(self):
        super().__init__()
        self.n, self.last = 0, ""

    def __call__(self, x):
        self.n, self.last = self.n + 1, "the same"
        return 2 * x if self.n > 2 else x


def test_what_counts_its_calls_is_said(caplog):
    net = Third().eval()
    trace(net, X)
    (said,) = (record.message for record in caplog.records)
    assert said == (
        "Third.n changes with every call of Third: what that changes later is left out"
    )
    assert net.n == 0


def test_a_module_may_assign_to_its_input():
    def fn(x):
        x += 1.5
        x[:, 0] = 2 * x[:, 1]
        return x

    wanted = fn(mx.array(X))
    given = mx.array(X)
    graph = trace(as_module(fn), given)
    assert mx.array_equal(given, X)
    assert mx.array_equal(evaluate(graph, X)[graph.outputs[0]], wanted)


def test_what_a_module_writes_each_time_alike_leaves_its_layers_recognizable():
    """Two calls give the same, but not by the same operations: the second writes once more."""

    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self._mask = nn.Linear(8, 8), mx.zeros(8)

        def __call__(self, x):
            self._mask[2:4] = 1.0
            return self.layer(x) * self._mask

    net = as_module(Writing())
    assert "layer.weight" in trace(net, X).constants
    assert ops(net, X)["Linear"] == 1
    assert_lowered(net, X)
    assert mx.array_equal(Writing()._mask, mx.zeros(8))


@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (4, 4), (7, 3), (1001,)])
@pytest.mark.parametrize(
    "draw",
    [
        lambda key, shape: mx.random.normal(shape, key=key),
        lambda key, shape: mx.random.randint(0, 100, shape, key=key),
        lambda key, shape: mx.random.uniform(shape=shape, key=mx.random.split(key, 3)[1]),
        lambda key, shape: mx.random.uniform(shape=shape, key=key, dtype=mx.float16),
    ],
)
def test_random_numbers_of_a_fixed_key_are_constants(draw, shape):
    def fn(x):
        return draw(mx.random.key(11), shape).astype(mx.float32) + x

    x = mx.zeros(1)
    graph = run_passes(trace(as_module(fn), x))
    assert len(graph.nodes) == 1
    [found] = evaluate(graph, x).values()
    assert mx.allclose(found, fn(x), atol=1e-3)  # halves of a range are not the same in float32


def test_numbers_of_numpys_are_numbers():
    def fn(x):
        return np.sqrt(2 / np.pi) * x + np.float32(0.5) * x - np.float64(1) / (x * x + 1)

    assert_lowered(fn, X)
    assert not hasattr(mx.array, "__array_ufunc__")


def test_a_contiguous_copy_is_a_copy():
    def fn(x):
        y = mx.contiguous(x)
        y += 1
        return x * y

    assert_lowered(fn, X)


@dataclass
class Found:
    boxes: mx.array
    scores: mx.array | None
    size: tuple[int, int] = (4, 4)


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (lambda x: x, ("output",)),
        (lambda x: [x], ("output",)),
        (lambda x: (x, None), ("output",)),
        (lambda x: (x, 2 * x), ("output_0", "output_1")),
        (lambda x: {"logits": x, "none": None}, ("logits",)),
        (lambda x: {"a": {"b": x}, "c": [x, 2 * x]}, ("a_b", "c_0", "c_1")),
        (lambda x: (x, {"aux": 2 * x}), ("output_0", "output_1_aux")),
        (lambda x: Found(x, None), ("boxes",)),
        (lambda x: Found(x, 2 * x), ("boxes", "scores")),
        (lambda x: namedtuple("Pair", "left right")(x, 2 * x), ("left", "right")),
    ],
)
def test_outputs_are_called_by_their_keys(result, names):
    graph = trace(as_module(result), X)
    assert graph.output_names == names
    assert len(graph.outputs) == len(names)


def test_what_is_no_array_is_said_to_be_left_out(caplog):
    trace(as_module(lambda x: {"y": x, "count": 3, "none": None}), X)
    assert [r.getMessage() for r in caplog.records] == [
        "count, of type int, is no array: it is no output of the package"
    ]


@pytest.mark.parametrize("result", [None, 3.0, (), {"loss": None}])
def test_a_module_that_gives_no_array_is_told_so(result):
    with pytest.raises(ConfigError, match="return an array, or arrays in a tuple"):
        trace(as_module(lambda x: result), X)


def test_a_package_has_the_names_of_keys_and_keywords(tmp_path):
    class Named(nn.Module):
        def __call__(self, x, *, scale=None, mask):
            return {"logits": mx.where(mask, x * scale, 0), "states": [x + scale]}

    net, given = Named().eval(), {"x": X, "mask": X > 0, "scale": np.float32(3)}
    package = load_package(export_module(net, given, tmp_path / "x.mlpackage"))
    assert list(package.inputs) == ["x", "mask", "scale"]
    assert list(package.outputs) == ["logits", "states_0"]


@pytest.mark.parametrize("name", ["%0", "", "a.b"])
def test_a_parameter_may_be_called_anything(name, tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self[name] = mx.arange(8.0)
            self.a = {"b": 2 * self[name], "x.y": nn.Linear(8, 8)}

        def __call__(self, x):
            return self.a["x.y"](x + self[name]) * self.a["b"]

    net = as_module(Odd())
    assert_lowered(net, X)
    assert "a.x.y.weight" in trace(net, X).constants


ACTIVATION = partial(mx.compile, shapeless=True)(lambda x: x * mx.sigmoid(1.5 * x) + 1)


@pytest.mark.parametrize("compiles", [True, False])
def test_compiled_functions_are_traced_through(compiles):
    def fn(x):
        inner = mx.compile(lambda y: mx.exp(-mx.abs(y)) * 2)
        return ACTIVATION(x) + inner(x) * mx.mean(nn.gelu(mx.ones(8)))

    if not compiles:
        mx.disable_compile()
    try:
        assert_lowered(fn, X)
        calls = []
        counting = mx.compile(lambda x: calls.append(1) or 2 * x)
        counting(X), counting(X)
        assert len(calls) == (1 if compiles else 2)
    finally:
        mx.enable_compile()


def test_checkpoints_and_functions_with_gradients_of_their_own_are_traced_through():
    @mx.custom_function
    def doubled(x):
        return 2 * x

    @doubled.vjp
    def gradient(primals, cotangent, output):
        return cotangent

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)
            self._call = nn.utils.checkpoint(self.layer)

        def __call__(self, x):
            return doubled(self._call(x)) + nn.utils.checkpoint(self.layer)(x)

    assert_lowered(as_module(Checkpointed()), X)


def test_a_mapped_function_is_not_taken_for_a_checkpoint():
    def fn(x):
        mapped = mx.vmap(lambda row: row / row.sum())
        return mx.checkpoint(lambda y: 2 * y)(mapped(x))

    with pytest.raises(UnsupportedOpError, match="cannot export CustomTransforms"):
        trace(as_module(fn), X)


class Scaled(nn.Module):
    """Reads a parameter's value, a constant's and one computed of both."""

    def __init__(self):
        super().__init__()
        self.stride, self._offset = mx.array([2.0, 4.0]), mx.array(3)

    def __call__(self, x):
        both = self.stride * self._offset
        mx.eval(both)
        sizes = np.asarray(self.stride).astype(int).tolist()
        return x * float(self.stride[0]) + self._offset.item() + both[1].item() + sum(sizes)


def test_values_of_parameters_and_constants_are_known():
    assert_lowered(as_module(Scaled()), X)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x * x[0, 0].item(),
        lambda x: mx.array(np.pad(np.asarray(x), 1)),
        lambda x: x if x[0, 0] > 0 else -x,
        lambda x: mx.eval(x) or x,
        lambda x: x[: int(x[0, 0])],
        lambda x: mx.array(x.tolist()),
    ],
)
def test_a_value_that_depends_on_the_input_is_unknown_and_the_place_said(read, tmp_path):
    class Reading(nn.Module):
        def __call__(self, x):
            return read(x)

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = [nn.Linear(8, 8), nn.Sequential(Reading())]

        def __call__(self, x):
            return self.blocks[1](self.blocks[0](x))

    with pytest.raises(
        ConfigError, match=r"^blocks\.1\.layers\.0 \(test_trace\.py, line"
    ) as error:
        export_module(as_module(Deep()), X, tmp_path / "x.mlpackage")
    assert "values are not known while tracing" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_fails_in_the_module_is_told_in_one_line(tmp_path):
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(9, 8)]

        def __call__(self, x):
            return self.layers[0](x)

    said = r"cannot be called: ValueError in layers\.0 \(linear\.py, line \d+\): \[addmm\] Last"
    with pytest.raises(ConfigError, match=said):
        export_module(as_module(Wrong()), X, tmp_path / "x.mlpackage")


def test_a_module_in_training_mode_is_exported_as_in_eval_mode_and_stays_so(caplog):
    net = nn.Sequential(nn.BatchNorm(8), nn.Dropout(0.5))
    mx.eval(net.parameters())
    graph = trace(net, X)
    assert "Sequential is in training mode" in caplog.text
    assert net.training
    assert net.layers[1].training
    [found] = evaluate(graph, X).values()
    assert mx.allclose(found, X, atol=1e-4)  # new statistics: mean 0, variance 1


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_inside_is_float32_in_the_graph(dtype):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self._scale = nn.Linear(8, 8), mx.ones(8, dtype) * 1.5
            self.layer.set_dtype(dtype)

        def __call__(self, x):
            y = self.layer(x.astype(self.layer.weight.dtype)) * self._scale
            return (y.astype(dtype) + mx.array(0.5, dtype)).astype(mx.float32)

    net = as_module(Half())
    graph = trace(net, X)
    assert {v.dtype for n in graph.nodes for v in n.outputs} == {"float32"}
    [found] = evaluate(graph, X).values()
    assert mx.allclose(found, net(X), atol=0.1)
    assert net.layer.weight.dtype == dtype


def test_where_a_value_is_computed_is_known_without_a_parameter():
    class Inner(nn.Module):
        def __call__(self, x):
            return mx.tanh(x) + x.mean()

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.parts = nn.Linear(8, 8), [Inner(), Inner()]

        def __call__(self, x):
            for part in self.parts:
                x = mx.exp(part(self.first(x)))
            return mx.square(x)

    graph = trace(as_module(Outer()), X)
    place = {n.op: [graph.place(m) for m in graph.nodes if m.op == n.op] for n in graph.nodes}
    assert place["Tanh"] == place["Reduce"] == ["parts.0", "parts.1"]
    assert place["AddMM"] == ["first", "first"]


@pytest.mark.parametrize("name", ["A", "B", "C", "D", "E"])
def test_an_input_may_be_called_as_mlx_calls_its_values(name, tmp_path):
    net = as_module(lambda x: mx.tanh(x) * 2)
    path = export_module(
        net, X, tmp_path / "x.mlpackage", input_names=name, precision="float32"
    )
    got = load_package(path).predict({name: np.array(X)})["output"]
    assert np.abs(got - np.array(net(X))).max() < 1e-6
