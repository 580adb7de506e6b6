"""Each rule of the lint complains of what it is about, and of nothing else."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest

from converters.compress.methods import compress
from converters.coreai.lint import RULES, lint
from converters.coreai.runtime import RawFunction, RawOp
from converters.coreai.stored import stored_function
from converters.graph.graph import Graph, Node, Value
from converters.graph.passes.precision import set_precision

from ..compress.test_forms import weight
from .kit import in_half, physical_graph, saved

X = mx.random.normal((2, 10, 16))


def findings(graph, path, **options):
    return {f.rule: f for f in saved(graph, path / "m.aimodel", **options).findings()}


def test_a_network_without_any_of_it_is_clean(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 4, 1))
    graph = in_half(physical_graph(net, mx.zeros((1, 8, 8, 3))))
    assert findings(graph, tmp_path) == {}


TRACED = {
    "argmax": lambda x: mx.argmax(x, axis=1),
    "rounded-halves": mx.round,
}


@pytest.mark.parametrize("rule", TRACED)
def test_an_operation_that_devices_get_wrong_is_found(rule, tmp_path):
    found = findings(physical_graph(TRACED[rule], X), tmp_path)
    assert set(found) == {rule}
    assert found[rule].advice.endswith(".")
    assert "\n" not in found[rule].advice


def test_our_own_rounding_is_not_what_devices_get_wrong(tmp_path):
    graph = physical_graph(lambda x: mx.floor(x) + mx.ceil(x), X)
    assert findings(graph, tmp_path) == {}


def test_a_floor_written_as_others_do_is_found():
    """Converters write a division by one, which our own lowering does not."""
    constant = RawOp("constant", ("one",), (), (1,), ("tensor<f32>",), "", True, None, None)
    kind = "tensor<2x3xf32>"
    floor = RawOp(
        "broadcasting_floor_divide", ("y",), (0, 1), (2,), (kind,), "", False, None, None
    )
    raw = RawFunction("main", False, "", ("x",), (kind,), ("y",), (kind,), (constant, floor))
    stored = stored_function(raw, {})
    for divisor, wanted in ((1, {"floor-by-one"}), (2, set())):
        object.__setattr__(stored, "value", lambda name, d=divisor: mx.array(d))
        assert {f.rule for f in lint(stored)} == wanted


@pytest.mark.parametrize(
    ("kind", "rule", "said"),
    [
        ("tensor<?x3xf16>", "dynamic-shape", "y: shape [-1, 3]"),
        ("tensor<1x1x1x1x2x3xf16>", "rank-above-five", "y: rank 6"),
    ],
)
def test_a_shape_that_no_engine_takes_is_found(kind, rule, said):
    relu = RawOp("relu", ("y",), (0,), (1,), (kind,), "", False, None, None)
    raw = RawFunction("main", False, "", ("x",), (kind,), ("y",), (kind,), (relu,))
    [found] = lint(stored_function(raw, {}))
    assert found.rule == rule
    assert found.examples == (said,)


def test_a_node_kept_in_float32_is_an_island(tmp_path):
    graph = physical_graph(lambda x: mx.exp(nn.relu(x)) * 2, X)
    kept = next(n.outputs[0].name for n in graph.nodes if n.op == "Exp")
    found = findings(set_precision(graph, "float16", keep={kept}), tmp_path)
    assert set(found) == {"float32-island"}
    assert found["float32-island"].examples == ("exp: exp in float32",)
    assert findings(graph, tmp_path) == {}  # all of it is float32


@pytest.mark.parametrize(("block", "wanted"), [(32, {"weights-per-block"}), (None, set())])
def test_scales_per_block_are_found(block, wanted, tmp_path):
    options = {"bits": 8} | ({"block": block} if block else {})
    form = compress(weight((8, 64)), "quantize", options)
    given = Value("x", (2, 64), "float16")
    node = Node("Linear", ("x", "w.weight"), (Value("y", (2, 8), "float16"),))
    graph = Graph((given,), ("y",), {"w.weight": form.dense()}, (node,))
    assert set(findings(graph, tmp_path, forms={"w.weight": form})) == wanted


def test_every_rule_has_its_advice_severity_and_source():
    assert len({r.name for r in RULES}) == len(RULES) >= 7
    for each in RULES:
        assert each.advice
        assert each.severity in {"error", "warning", "info"}
        assert each.source
