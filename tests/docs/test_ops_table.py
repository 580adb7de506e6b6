"""docs/ops.md says what becomes of every primitive."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from converters.coreml.coverage import outcome, primitives, table
from converters.coreml.registry import supported
from converters.graph.evaluate import can_evaluate
from converters.graph.graph import Node, Value
from converters.graph.ops import OPS, PHYSICAL

DOCS = Path(__file__).parents[2] / "docs"
# Of passes and of MLX's own forms: no primitive of that name.
RAISED = (
    "Affine Attention EdgePad Gelu GeluSigmoid GeluTanh HardSwish LayerNorm LeakyRelu Linear "
    "LogicalXor Pool Relu Relu6 Resize ScatterRows Silu AffineQuantize Take Resample "
    "DepthToSpace SpaceToDepth PixelShuffle PixelUnshuffle".split()
)


def test_the_table_is_current():
    assert (DOCS / "ops.md").read_text() == "\n".join(table()) + "\n"


def test_every_operation_that_we_know_is_a_primitive_or_raised():
    assert set(OPS) - set(primitives()) <= set(RAISED)
    assert supported() <= set(OPS) | set(PHYSICAL)


def test_mlx_hands_over_primitives_of_these_names():
    """The table is of the classes in MLX's headers; a trace has the same names."""
    found = []

    def fn(x):
        order = mx.argsort(x, axis=0)
        return mx.put_along_axis(mx.cummax(mx.arctan2(x, x), axis=0), order, x, axis=0)

    mx.export_function(found.append, fn, (mx.ones((3, 3)),))
    traced = {r["name"] for r in found if r["type"] == "primitive"}
    assert {"ArcTan2", "Scan", "ArgSort", "ScatterAxis"} <= traced
    assert traced <= set(primitives())


@pytest.mark.parametrize("name", primitives())
def test_what_is_not_lowered_says_why(name):
    what, note = outcome(name)
    if what in {"folded", "refused"} and name != "Arange":
        assert note
    if what == "folded":
        assert can_evaluate(
            Node(name.replace("Quantize", "AffineQuantize"), (), (Value("y", ()),))
        )
