"""Every weight of every model is within reach of every preset.

Coverage needs no compression of whole models: which constants are weights is seen in the
graph, and what a preset makes of one depends on its shape.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from mlx.utils import tree_flatten

from converters.compress.apply import LEAST, weights
from converters.compress.methods import compress
from converters.compress.recipe import PRESETS, load_recipe
from converters.compress.rounding import Weight
from converters.export.build import lay_out, rename_inputs, to_graph
from ondevice import create_model, list_models, model_spec
from ondevice.nn.image_model import ImageModel

from ...support.lowered import function_of, stored
from ...support.names import representatives

LARGE = 1 << 15  # elements: what goes wrong with odd widths goes wrong in smaller weights


@cache
def towers():
    """A name for each image encoder: some models differ in their heads only."""
    first = {}
    for name in representatives():
        values = tree_flatten(create_model(name).parameters())
        body = [(path.removeprefix("trunk."), value.shape) for path, value in values]
        first.setdefault(tuple(b for b in body if not b[0].startswith("head.")), name)
    return tuple(first.values())


@cache
def text_towers():
    """A name for each text encoder: their configurations say all."""
    names = [name for image in list_models() if (name := model_spec(image).text)]
    return tuple({model_spec(name).config: name for name in names}.values())


@cache
def covered(name):
    """The shapes and axes of a model's weights, and its large matrices that are none."""
    model = create_model(name)
    if name in text_towers():
        function = function_of(model)
    else:
        backbone = isinstance(model, ImageModel) and "head" not in model
        function = function_of(model, outputs=["embedding"] if backbone else None)
    graph = lay_out(rename_inputs(to_graph(function), function.input_names), function)
    found = [w for w in weights(graph) if w.value.size >= LEAST]
    matrices = {
        path
        for path, value in graph.constants.items()
        if value.size >= LEAST and sum(n > 1 for n in value.shape) > 1
    }
    missed = matrices - {w.path for w in found}
    return {(w.value.shape, w.axis) for w in found}, missed


@pytest.mark.parametrize("name", [*towers(), *text_towers()])
def test_every_matrix_of_a_model_is_seen_as_a_weight(name):
    shapes, missed = covered(name)
    assert shapes
    assert not missed


@pytest.mark.parametrize("name", text_towers())
def test_a_text_encoders_tables_are_weights(name):
    config = model_spec(name).config
    shapes = {shape for shape, _ in covered(name)[0]}
    assert {(config.vocab, config.width), (1, config.context, config.width)} <= shapes


HELD = [(preset, "iOS18") for preset in PRESETS]
HELD += [(p, "iOS17") for p in ("int8", "palette8", "palette6", "palette4", "w8a8", "prune")]


@pytest.mark.parametrize(("preset", "target"), HELD)
def test_every_shape_of_every_model_takes_every_preset(preset, target):
    recipe = load_recipe(preset, stored(target))
    rule = recipe.rule("any.weight")
    shapes = set().union(*(covered(name)[0] for name in (*towers(), *text_towers())))
    small = {(s, a) for s, a in shapes if np.prod(s) < LARGE}
    assert len(small) > 100
    for shape, axis in sorted(small):
        value = np.resize(np.array([-1, 0, 0.5], np.float32), shape)
        form = compress(Weight("w", value, np.float16, axis), rule.method, rule.options)
        assert form is not None
        assert form.shape == form.dense().shape == shape
