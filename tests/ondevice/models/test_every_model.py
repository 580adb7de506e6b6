"""Every registered variant reaches Core ML's operations with no transpose and no surprise."""

from __future__ import annotations

from collections import Counter

import pytest

from converters.coreml.registry import check_supported
from converters.export.build import lay_out, rename_inputs, to_graph
from ondevice import create_model
from ondevice.nn.image_model import ImageModel

from ...support.lowered import function_of
from ...support.names import detectors, representatives

MOVING = {"Reshape", "Transpose", "Split", "Slice", "Concatenate", "Pad", "Gather", "Broadcast"}
# Operations and those of them that move data, as few as the architecture needs by hand count.
COUNTS = {
    "shvit_s4": (310, 66),
    "efficientvit_m5": (490, 130),
    "fastvit_sa12": (122, 10),
    "fastvit_mci3": (360, 22),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in representatives() if n not in detectors()])
def test_a_variant_needs_no_transpose(name):
    model = create_model(name)
    backbone = isinstance(model, ImageModel) and "head" not in model
    function = function_of(model, outputs="embedding" if backbone else None)
    graph = lay_out(rename_inputs(to_graph(function), function.input_names), function)
    check_supported(graph)
    found = Counter(node.op for node in graph.nodes)
    assert found["Transpose"] == 0
    if name in COUNTS:
        most, moving = COUNTS[name]
        assert len(graph.nodes) + 3 <= most  # a classifier adds softmax, cast and classify
        assert sum(found[op] for op in MOVING) <= moving
