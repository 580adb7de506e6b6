"""Recipes on whole networks: every weight is covered, and the package is what was decided."""

from __future__ import annotations

import json

import coremltools as ct
import coremltools.optimize.coreml as cto
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export_module, load_package
from converters.compress.apply import LEAST, compress_graph, weights
from converters.compress.recipe import PRESETS, CompressionRecipe, Rule, load_recipe
from converters.coreml.package import save, to_package
from converters.coreml.program import to_program
from converters.coreml.reader import quiet
from converters.export.build import lay_out, rename_inputs, to_graph
from converters.graph.passes.precision import set_precision
from ondevice import create_model
from ondevice.errors import ConfigError

from ...support.lowered import function_of, stored
from .odd import SHAPE, exported, physical, specified


@pytest.mark.parametrize("preset", PRESETS)
def test_a_package_computes_what_its_unpacked_twin_does(odd, samples, tmp_path, preset):
    package, account = exported(
        odd, tmp_path / "a.mlpackage", target="iOS18", recipe=preset, calibration=samples
    )
    _, function = physical(odd)
    graph = set_precision(account.graph, "float16")
    program = to_program(graph, target="iOS18", names=function.output_names)
    save(to_package(program, function, target="iOS18"), tmp_path / "b.mlpackage")
    twin = load_package(tmp_path / "b.mlpackage")
    assert not [op for op in specified(twin) if op.type.startswith("constexpr")]
    for sample in samples[:2]:
        got, wanted = (p.predict({"input": sample})["output"] for p in (package, twin))
        np.testing.assert_array_equal(got, wanted)


WEIGHTS_ONLY = [p for p in PRESETS if not PRESETS[p].build(stored("iOS18")).activations]
TWINS = [*((p, "iOS18") for p in WEIGHTS_ONLY), ("palette4", "iOS17"), ("int8", "iOS17")]


@pytest.mark.parametrize(("preset", "target"), TWINS)
def test_a_package_computes_what_coremltools_unpacks(odd, tmp_path, preset, target):
    """The other test's twin is our own arithmetic; this one is Apple's."""
    package, account = exported(odd, tmp_path / "a.mlpackage", target=target, recipe=preset)
    with quiet():
        loaded = ct.models.MLModel(str(package.path), skip_model_load=True)
        save(cto.decompress_weights(loaded), tmp_path / "b.mlpackage")
    twin = load_package(tmp_path / "b.mlpackage")
    assert account.forms
    assert not [op for op in specified(twin) if op.type.startswith("constexpr")]
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    got, wanted = (p.predict({"input": x})["output"] for p in (package, twin))
    np.testing.assert_array_equal(got, wanted)


LEAST_TARGET = {"w8a8": "iOS17"} | dict.fromkeys(
    ("int4-block", "a8w4", "prune-int8", "prune-palette4", "palette4-int8"), "iOS18"
)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("target", ["iOS16", "iOS17", "iOS18"])
def test_every_weight_is_covered_or_the_target_refused(odd, preset, target):
    graph, _ = physical(odd)
    recipe = load_recipe(preset, stored(target))
    if target < LEAST_TARGET.get(preset, "iOS16"):
        with pytest.raises(ConfigError, match=f"not {target}; use {PRESETS[preset].lower},"):
            compress_graph(graph, recipe, storage=stored(target))
        return
    result = compress_graph(graph, recipe, storage=stored(target))
    large = {w.path for w in weights(graph) if w.value.size >= LEAST}
    assert large == {"stem.weight", "depthwise.weight", "wide.weight", "grouped.weight",
                     "up.weight", "places", "qkv.weight", "head.weight"}  # fmt: skip
    assert result.forms.keys() == large
    assert {r.path for r in result.rows} >= large


@pytest.mark.parametrize("name", ["shvit_nano", "efficientvit_m0", "fastvit_t8"])
@pytest.mark.parametrize("preset", ["int8", "int4-block"])
def test_every_weight_of_every_family_is_covered(name, preset):
    function = function_of(create_model(name))
    graph = lay_out(rename_inputs(to_graph(function), function.input_names), function)
    result = compress_graph(
        graph, load_recipe(preset, stored("iOS18")), storage=stored("iOS18")
    )
    matrices = {
        k
        for k, v in graph.constants.items()
        if v.size >= LEAST and sum(n > 1 for n in v.shape) > 1
    }
    assert matrices == result.forms.keys()


def test_biases_and_small_tensors_stay_float_and_say_why(odd):
    graph, _ = physical(odd)
    recipe = CompressionRecipe((Rule("head.*", "none"), Rule("*", "quantize", bits=8)))
    rows = {r.path: r for r in compress_graph(graph, recipe, storage=stored("iOS17")).rows}
    assert rows["head.weight"].note == "rule head.*"
    assert rows["head.weight"].format == "float16"
    assert rows["wide.weight"].format == "int8 per channel"
    assert rows["wide.weight"].snr_db > 40
    assert not [path for path in rows if path.endswith("bias")]


def test_the_first_rule_that_matches_decides():
    recipe = CompressionRecipe((Rule("head.*", "none"), Rule("*", "palettize", bits=6)))
    assert recipe.rule("head.weight").method == "none"
    assert recipe.rule("stages.0.weight").options == {"bits": 6}


def test_a_package_says_its_recipe(odd, tmp_path):
    package, account = exported(odd, tmp_path / "a.mlpackage", recipe="int8")
    said = json.loads(package.metadata["ondevice.recipe"])
    assert said["name"] == "int8"
    assert said["rules"] == [{"pattern": "*", "method": "quantize", "bits": 8}]
    assert said["compressed"] == len(account.forms) == 8


def test_a_weight_keeps_its_path_in_the_package(odd, tmp_path):
    package, account = exported(odd, tmp_path / "a.mlpackage", recipe="palette4")
    stored = {
        op.outputs[0].name for op in specified(package) if op.type.startswith("constexpr")
    }
    assert stored == {path.replace(".", "_") for path in account.forms}


@pytest.mark.parametrize("recipe", ["", "int8"])
def test_equal_arguments_are_stored_once_and_short_vectors_inline(odd, tmp_path, recipe):
    """Compressed or not, so that a share of the one is not flattered by waste in the other."""
    path = export_module(odd, mx.zeros(SHAPE), tmp_path / "a.mlpackage", recipe=recipe)
    operations = specified(load_package(path))
    stored = {
        op.outputs[0].name: op.attributes["val"] for op in operations if op.type == "const"
    }
    inline = {k: v for k, v in stored.items() if not v.HasField("blobFileValue")}
    said = [v.SerializeToString(deterministic=True) for v in inline.values()]
    assert len(said) == len(set(said))
    assert stored.keys() - inline.keys() == (set() if recipe else {"places", "up_weight"})


LOUD = ((3, 16), (16, 16), (16, 8))


def test_ranges_are_those_of_the_values_as_they_are_stored(tmp_path):
    """What leaves half precision is stored divided, and was measured undivided."""

    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.mix, self.down = (nn.Conv2d(i, o, 1) for i, o in LOUD)

        def __call__(self, x):
            return self.down(nn.relu(self.mix(self.up(x))))

    mx.random.seed(0)
    model = Loud().eval()
    model.up.weight, model.down.weight = model.up.weight * 1e5, model.down.weight / 1e5
    mx.eval(model.parameters())
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(SHAPE).astype(np.float32) for _ in range(8)]
    path = tmp_path / "a.mlpackage"
    export_module(model, mx.array(inputs[0]), path, recipe="w8a8", calibration=inputs)
    package = load_package(path)
    assert json.loads(package.metadata["ondevice.float16"])["rescaled_values"]
    wanted = np.array(model(mx.array(inputs[0])))
    lost = package.predict({"input": inputs[0]})["output"] - wanted
    assert np.square(lost).sum() < np.square(wanted).sum() / 5000  # 11,000 measured


def test_calibration_helps(odd, samples, tmp_path):
    wanted = np.array(odd(mx.array(samples[0])))
    plain, _ = exported(odd, tmp_path / "a.mlpackage", recipe="palette4")
    tuned, _ = exported(odd, tmp_path / "b.mlpackage", recipe="palette4", calibration=samples)
    lost = [
        np.abs(p.predict({"input": samples[0]})["output"] - wanted).max()
        for p in (plain, tuned)
    ]
    assert lost[1] < lost[0]


def test_compressing_twice_gives_the_same_bytes(odd, samples, tmp_path):
    forms = [
        exported(odd, tmp_path / "a.mlpackage", recipe="palette4", calibration=samples)[1].forms
        for _ in range(2)
    ]
    for path, form in forms[0].items():
        assert form.dense().tobytes() == forms[1][path].dense().tobytes()
