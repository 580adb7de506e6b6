"""coremltools runs some ninety passes over any program. Ours needs one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from converters import export, load_package
from converters.coreml.package import save
from converters.coreml.program import to_program
from converters.coreml.reader import quiet
from converters.coreml.target import opset
from converters.export.build import lay_out, rename_inputs, to_graph
from ondevice import create_model
from ondevice.signature.samples import sample_images

from ...support.lowered import function_of


@pytest.mark.parametrize("name", ["shvit_nano.flowers", "efficientvit_m0", "fastvit_t8"])
def test_the_default_pipeline_would_change_neither_operations_nor_numbers(name, tmp_path):
    import coremltools as ct

    model = create_model(name)
    names = tuple(f"class {i}" for i in range(model.config.num_classes))
    model.info = replace(model.info, labels=names)
    noise = tree_map(lambda p: p + 0.02 * mx.random.uniform(shape=p.shape), model.parameters())
    model.update(noise)  # else some parameters are zeros, and adding zeros is dropped
    function = function_of(model)
    ours = load_package(export(model, tmp_path / "ours.mlpackage", precision="float32"))
    graph = lay_out(rename_inputs(to_graph(function), function.input_names), function)
    program = to_program(graph, names=function.output_names)
    height, width = function.inputs[0].shape[1:3]
    with quiet():
        package = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=opset("iOS17"),
            compute_precision=ct.precision.FLOAT32,
            inputs=[ct.ImageType(name="image", shape=(1, 3, height, width))],
            classifier_config=ct.ClassifierConfig(
                list(function.labels), predicted_probabilities_output="probabilities"
            ),
            skip_model_load=True,
        )
    save(package, tmp_path / "theirs.mlpackage")
    theirs = load_package(tmp_path / "theirs.mlpackage")
    assert Counter(theirs.operations) == Counter(ours.operations)
    image = sample_images(height)[0]
    a, b = (p.predict({"image": image})["logits"] for p in (ours, theirs))
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()
