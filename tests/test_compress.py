"""Recipes on whole networks: every weight is covered, and the package is what was decided."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import coremltools as ct
import coremltools.optimize.coreml as cto
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export, load_package
from converters.compress.activations import RANGES, Range, mse, range_of
from converters.compress.apply import LEAST, Compression, compress_graph, weights
from converters.compress.calibrate import calibrate, layers, measure
from converters.compress.mixed import Choice, agreeing, front, within
from converters.compress.plan import in_mlx
from converters.compress.recipe import PRESETS, CompressionRecipe, Rule, load_recipe
from converters.coreml.package import save, to_package
from converters.coreml.program import to_program
from converters.coreml.reader import quiet
from converters.evaluate import evaluate
from converters.export import lay_out, named, rename_inputs, to_graph
from converters.interface import array_interface, image_interface
from converters.passes.precision import set_precision
from converters.verify import folder_bytes
from ondevice import create_model
from ondevice.errors import ConfigError, ImageError

SHAPE = (1, 24, 24, 3)


class Odd(nn.Module):
    """A stem, a depthwise and a grouped convolution, widths that divide by nothing, a table."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 22, 3, 2, 1)
        self.depthwise = nn.Conv2d(22, 22, 5, 1, 2, groups=22)
        self.wide = nn.Conv2d(22, 37, 1)
        self.grouped = nn.Conv2d(37, 74, 3, 2, 1, groups=37)
        self.up = nn.ConvTranspose2d(74, 18, 2, 2)
        self.places = mx.random.normal((12, 12, 18))
        self.norm = nn.LayerNorm(18)
        self.qkv = nn.Linear(18, 51, bias=False)
        self.head = nn.Linear(17, 29)

    def __call__(self, x: mx.array) -> mx.array:
        x = nn.relu(self.depthwise(nn.gelu(self.stem(x))))
        x = self.up(nn.relu(self.grouped(nn.relu(self.wide(x))))) + self.places
        q, k, v = mx.split(self.qkv(self.norm(x.reshape(x.shape[0], 144, 18))), 3, axis=-1)
        x = mx.softmax(q @ k.swapaxes(1, 2) / 4, axis=-1) @ v
        return self.head(x.mean(axis=1))


@pytest.fixture(scope="module")
def odd():
    mx.random.seed(0)
    model = Odd()
    for layer in (model.stem, model.depthwise, model.wide, model.grouped, model.up):
        layer.bias = mx.random.normal(layer.bias.shape) / 4
    model.head.weight = model.head.weight * 4
    mx.eval(model.parameters())
    return model.eval()


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 3, 24)[:, None, None] * np.linspace(0, 2, 24)[None, :, None]
    return [
        (np.sin(grid * rng.uniform(1, 4, 3)) + 0.3 * rng.standard_normal(SHAPE)).astype(
            np.float32
        )
        for _ in range(16)
    ]


def exported(model, path, **options):
    """The package, and what became of its weights."""
    accounts: list[Compression] = []
    made = export(model, mx.zeros(SHAPE), path, account=accounts.append, force=True, **options)
    (account,) = accounts
    return load_package(made), account


def specified(package):
    """The operations as they are stored, constants included."""
    (block,) = package.saved.spec.mlProgram.functions["main"].block_specializations.values()
    return list(block.operations)


def physical(model, example=None):
    interface = array_interface(model, mx.zeros(SHAPE) if example is None else example)
    graph = to_graph(interface)
    interface = named(interface, graph)
    return lay_out(rename_inputs(graph, interface.input_names), interface), interface


@pytest.mark.parametrize("preset", PRESETS)
def test_a_package_computes_what_its_unpacked_twin_does(odd, samples, tmp_path, preset):
    package, account = exported(
        odd, tmp_path / "a.mlpackage", target="iOS18", recipe=preset, calibration=samples
    )
    _, interface = physical(odd)
    graph = set_precision(account.graph, "float16")
    program = to_program(graph, target="iOS18", names=interface.output_names)
    save(to_package(program, interface, target="iOS18"), tmp_path / "b.mlpackage")
    twin = load_package(tmp_path / "b.mlpackage")
    assert not [op for op in specified(twin) if op.type.startswith("constexpr")]
    for sample in samples[:2]:
        got, wanted = (p.predict({"input": sample})["output"] for p in (package, twin))
        np.testing.assert_array_equal(got, wanted)


WEIGHTS_ONLY = [p for p in PRESETS if not PRESETS[p].build("iOS18").activations]
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
    recipe = load_recipe(preset, target)
    if target < LEAST_TARGET.get(preset, "iOS16"):
        with pytest.raises(ConfigError, match=f"not {target}; .* use {PRESETS[preset].lower},"):
            compress_graph(graph, recipe, target=target)
        return
    result = compress_graph(graph, recipe, target=target)
    large = {w.path for w in weights(graph) if w.value.size >= LEAST}
    assert large == {"stem.weight", "depthwise.weight", "wide.weight", "grouped.weight",
                     "up.weight", "places", "qkv.weight", "head.weight"}  # fmt: skip
    assert result.forms.keys() == large
    assert {r.path for r in result.rows} >= large


@pytest.mark.parametrize("name", ["shvit_nano", "efficientvit_m0", "fastvit_t8"])
@pytest.mark.parametrize("preset", ["int8", "int4-block"])
def test_every_weight_of_every_family_is_covered(name, preset):
    interface = image_interface(create_model(name))
    graph = lay_out(rename_inputs(to_graph(interface), interface.input_names), interface)
    result = compress_graph(graph, load_recipe(preset, "iOS18"), target="iOS18")
    matrices = {
        k
        for k, v in graph.constants.items()
        if v.size >= LEAST and sum(n > 1 for n in v.shape) > 1
    }
    assert matrices == result.forms.keys()


def test_biases_and_small_tensors_stay_float_and_say_why(odd):
    graph, _ = physical(odd)
    recipe = CompressionRecipe((Rule("head.*", "none"), Rule("*", "quantize", bits=8)))
    rows = {r.path: r for r in compress_graph(graph, recipe, target="iOS17").rows}
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
    path = export(odd, mx.zeros(SHAPE), tmp_path / "a.mlpackage", recipe=recipe)
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
    export(model, mx.array(inputs[0]), path, recipe="w8a8", calibration=inputs)
    package = load_package(path)
    assert json.loads(package.metadata["ondevice.float16"])["rescaled_values"]
    wanted = np.array(model(mx.array(inputs[0])))
    lost = package.predict({"input": inputs[0]})["output"] - wanted
    assert np.square(lost).sum() < np.square(wanted).sum() / 300


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


# Calibration.


def test_statistics_come_from_every_sample_in_any_order(odd, samples):
    """coremltools 9.0 keeps the range of the last sample only."""
    loud = [*samples[:8], *(x * 9 for x in samples[8:])]
    _, interface = physical(odd)
    first, second = (measure(calibrate(interface, x)) for x in (loud, loud[::-1]))
    for path, found in first.items():
        np.testing.assert_allclose(found.moments, second[path].moments, rtol=1e-3, atol=1e-3)
    assert first["stem.weight"].values.max() == pytest.approx(np.max(loud), rel=0.1)


def test_statistics_are_of_what_a_channels_first_weight_meets(odd, samples):
    """For every layer: W H W^T is the mean square of the layer's output before its bias."""
    graph, interface = physical(odd)
    calibration = calibrate(interface, samples)
    found = measure(calibration)
    nodes = dict(layers(calibration.graph))
    assert nodes.keys() == found.keys() == {
        "stem.weight", "depthwise.weight", "wide.weight", "grouped.weight", "qkv.weight",
        "head.weight",
    }  # fmt: skip
    keep = {n.output.name for n in nodes.values()}
    for path, statistics in found.items():
        if path == "stem.weight":  # 144 places: only some of them are counted
            continue
        node, groups = nodes[path], len(statistics.means)
        outputs = []
        for batch in calibration.batches:
            y = np.array(evaluate(calibration.graph, *batch, keep=keep)[node.output.name])
            bias = calibration.graph.constants[node.inputs[2]] if len(node.inputs) > 2 else 0
            outputs.append((y - bias).reshape(-1, y.shape[-1]))
        if path in {"depthwise.weight", "wide.weight", "qkv.weight"}:
            continue  # more than 64 places as well
        wanted = np.square(np.concatenate(outputs)).mean(axis=0)
        rows = graph.constants[path].reshape(groups, -1, statistics.means.shape[1])
        got = ((rows @ statistics.moments) * rows).sum(axis=-1).ravel()
        np.testing.assert_allclose(got, wanted, rtol=1e-3)


def test_biases_make_up_for_the_mean(odd, samples):
    graph, interface = physical(odd)
    statistics = measure(calibrate(interface, samples))
    recipe = CompressionRecipe((Rule("*", "palettize", bits=2, rounding="nearest"),))
    result = compress_graph(graph, recipe, target="iOS17", statistics=statistics)
    means = statistics["head.weight"].means[0]
    before, after = (
        g.constants["head.weight"] @ means + g.constants["head.bias"]
        for g in (graph, result.graph)
    )
    np.testing.assert_allclose(before, after, atol=1e-3)


def test_compressed_weights_go_back_to_mlxs_layout(odd, samples):
    graph, interface = physical(odd)
    calibration = calibrate(interface, samples)
    untouched = in_mlx(calibration.graph, Compression(graph))
    assert len(untouched) == 11
    for name, value in untouched.items():
        np.testing.assert_array_equal(value, calibration.graph.constants[name])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([], "needs calibration images"),
        ([np.ones(SHAPE, np.float32)] * 3, "give 8 or more"),
        ([np.zeros(SHAPE, np.float32)] * 9, "one value everywhere"),
        ([np.ones((1, 5, 5, 3), np.float32)] * 9, "the model takes"),
    ],
)
def test_calibration_that_says_nothing_is_refused(odd, tmp_path, bad, said):
    with pytest.raises(ConfigError, match=said):
        exported(odd, tmp_path / "a.mlpackage", recipe="w8a8", calibration=bad)
    assert not list(tmp_path.iterdir())


def test_pictures_that_cannot_be_read_are_named(tmp_path):
    model = create_model("shvit_nano.cifar10", pretrained=True)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    paths = [tmp_path / "broken.jpg", tmp_path / "missing.jpg"]
    with pytest.raises(ImageError, match=r"broken\.jpg.*missing\.jpg"):
        export(model, tmp_path / "a.mlpackage", recipe="int8", calibration=paths)
    assert not (tmp_path / "a.mlpackage").exists()


# Activations.


def test_activations_are_rounded_in_front_of_layers_only(odd, samples, tmp_path):
    package, _ = exported(odd, tmp_path / "a.mlpackage", recipe="w8a8", calibration=samples)
    made = {o.name: op for op in specified(package) for o in op.outputs}

    def source(op, name):
        return made.get(op.inputs[name].arguments[0].name)

    rounded = [op for op in specified(package) if op.type == "dequantize"]
    assert rounded
    for op in specified(package):
        if op.type in {"gelu", "relu", "softmax", "add", "matmul", "layer_norm"}:
            inputs = [
                source(op, k) for k in op.inputs if op.inputs[k].arguments[0].name in made
            ]
            assert not [i for i in inputs if i is not None and i.type == "dequantize"]
        if op.type == "conv":
            assert source(op, "x").type == "dequantize"
    assert all(source(op, "input").type == "quantize" for op in rounded)


def test_a_residual_read_by_two_layers_is_rounded_once(samples, tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 96, 1), nn.Conv2d(3, 96, 1)

        def __call__(self, x):
            return self.a(x) + self.b(x)

    model = Two().eval()
    mx.eval(model.parameters())
    package, _ = exported(model, tmp_path / "a.mlpackage", recipe="w8a8", calibration=samples)
    assert package.operations.count("quantize") == 1


@pytest.mark.parametrize("method", RANGES)
def test_a_range_rounds_a_bell_to_within_a_percent(method):
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    found = RANGES[method](values)
    assert np.square(values - found.rounded(values)).mean() < 1e-3


def test_a_range_without_outliers_is_finer():
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    values[0] = 60
    least = mse(values)
    assert (
        np.square(values - least.rounded(values)).sum()
        <= np.square(values - RANGES["minmax"](values).rounded(values)).sum()
    )
    assert RANGES["percentile"](values).scale < range_of(-4, 60).scale / 3


def test_what_is_never_negative_uses_all_codes():
    found = range_of(0, 2.55)
    assert found == Range(pytest.approx(0.01, rel=1e-2), -128)
    assert found.rounded(np.array([0.0, 2.55])) == pytest.approx([0, 2.55], rel=1e-2)


# A format for each layer.


def choices(path, *points):
    return [Choice(path, ("palettize", (("bits", b),)), size, cost) for b, size, cost in points]


def test_the_front_takes_the_step_that_saves_most_a_byte():
    a = choices("a", (2, 10, 8.0), (4, 20, 1.0), (8, 40, 0.0))
    b = choices("b", (2, 10, 4.0), (8, 40, 0.5))
    points = front([a, b])
    assert [p.bytes for p in points] == [20, 30, 60, 80]
    assert [p.cost for p in points] == sorted((p.cost for p in points), reverse=True)
    assert within(points, 130, 100).bytes == 30
    assert within(points, 1000, 100).cost == 0.5
    with pytest.raises(ConfigError, match=r"the smallest is 0\.000 MB"):
        within(points, 119, 100)


def test_the_smallest_that_agrees_is_found():
    points = front([choices("a", (1, 1, 9.0), (2, 2, 4.0), (3, 3, 2.0), (4, 4, 1.0))])
    agreement = {1: 0.5, 2: 0.8, 3: 0.95, 4: 0.99}
    found = agreeing(points, 0.9, lambda p: agreement[int(p.bytes)])
    assert found.bytes == 3
    with pytest.raises(ConfigError, match=r"the best 99\.0%"):
        agreeing(points, 1.0, lambda p: agreement[int(p.bytes)])


def test_a_budget_is_kept_and_spent_where_it_counts(odd, samples, tmp_path):
    uniform, account = exported(
        odd, tmp_path / "a.mlpackage", recipe="palette4", target="iOS18", calibration=samples
    )
    budget = folder_bytes(uniform.path) + 8192
    mixed, found = exported(
        odd, tmp_path / "b.mlpackage", budget=budget, target="iOS18", calibration=samples
    )
    assert folder_bytes(mixed.path) <= budget
    assert found.forms.keys() == account.forms.keys()
    wanted = [np.array(odd(mx.array(x))) for x in samples]
    lost = [
        sum(
            np.square(p.predict({"input": x})["output"] - y).sum()
            for x, y in zip(samples, wanted, strict=True)
        )
        for p in (uniform, mixed)
    ]
    assert lost[1] < lost[0]


def test_the_front_shows_what_other_sizes_cost(odd, samples, tmp_path):
    package, account = exported(
        odd, tmp_path / "a.mlpackage", budget=60_000, calibration=samples, front=True
    )
    front = account.front
    said = front.to_dict()
    sizes = [p["bytes"] for p in said["points"]]
    assert sizes == sorted(sizes)
    assert 4 <= len(sizes) <= 13
    assert front.points[said["chosen"]].recipe == account.recipe
    assert abs(sizes[said["chosen"]] - folder_bytes(package.path)) < 4096
    assert [len(p["recipe"]) for p in said["points"]] == [7] * len(sizes)
    assert all(0 <= p["agreement"] <= 1 for p in said["points"])
    assert sum(row[0].endswith("*") for row in front.rows()) == 1
    svg = ElementTree.fromstring(front.to_svg())
    assert len(svg.findall("{*}circle")) == len(sizes)
    assert len(svg.findall("{*}circle[@class='chosen']")) == 1


def test_a_budget_too_small_says_the_smallest(odd, samples, tmp_path):
    with pytest.raises(
        ConfigError, match=r"no format fits into 0\.002 MB; the smallest is 0\.0"
    ):
        exported(odd, tmp_path / "a.mlpackage", budget=2000, calibration=samples)
    assert not list(tmp_path.iterdir())


# Recipes and their mistakes.


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_recipe_can_be_a_file(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    path.write_text(
        '{"rules": [{"pattern": "head.*", "method": "none"},'
        ' {"pattern": "*", "method": "palettize", "bits": 6}], "activations": "kl"}'
        if suffix == ".json"
        else "rules:\n- {pattern: head.*, method: none}\n"
        "- pattern: '*'\n  method: palettize\n  bits: 6\nactivations: kl\n"
    )
    recipe = load_recipe(path, "iOS17")
    assert recipe.name == "mine"
    assert recipe.rules == (Rule("head.*", "none"), Rule("*", "palettize", bits=6))
    assert recipe.activations == "kl"
    assert load_recipe(path, "iOS17").to_dict()["rules"][1]["bits"] == 6


BROKEN = {
    "not YAML": ("a.yaml", "rules: [", "not YAML"),
    "not JSON": ("a.json", "{", "Expecting"),
    "no rules": ("a.yaml", "x: 1", 'list of "rules"'),
    "no pattern": ("a.yaml", "rules: [{method: none}]", '"pattern" and a "method"'),
    "no method": ("a.yaml", "rules: [{pattern: '*', method: squash}]", "no method 'squash'"),
    "no option": (
        "a.yaml",
        "rules: [{pattern: '*', method: quantize, bit: 4}]",
        "no option 'bit'",
    ),
    "no bits": (
        "a.yaml",
        "rules: [{pattern: '*', method: palettize, bits: 5}]",
        "bits is 4, 1,",
    ),
    "no number": ("a.yaml", "rules: [{pattern: '*', method: palettize, group: x}]", "a number"),
    "all gone": ("a.yaml", "rules: [{pattern: '*', method: prune, sparsity: 1}]", "below 1"),
    "unknown key": ("a.yaml", "rules: []\nextra: 1", "unknown extra"),
    "no range": ("a.yaml", "rules: []\nactivations: best", "no activation range 'best'"),
    "missing": ("", "", "No such file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_recipe_file_is_one_line(tmp_path, case):
    name, text, said = BROKEN[case]
    path = tmp_path / (name or "missing.yaml")
    if name:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, "iOS18")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ConfigError, match="int8, palette8, palette6"):
        load_recipe("tiny", "iOS17")


def test_a_pattern_that_matches_nothing_is_refused(odd):
    graph, _ = physical(odd)
    recipe = CompressionRecipe((Rule("heads.*", "none"), Rule("*", "quantize", bits=8)))
    with pytest.raises(ConfigError, match=r"no weight matches heads\.\*; there are stem"):
        compress_graph(graph, recipe, target="iOS17")


@pytest.mark.parametrize(
    "options", [{"bits": 3}, {"group": 16}, {"table_bits": 8}], ids=lambda o: str(*o)
)
def test_what_a_target_cannot_hold_is_refused_with_what_it_can(odd, options):
    graph, _ = physical(odd)
    recipe = CompressionRecipe((Rule("*", "palettize", **options),))
    with pytest.raises(ConfigError, match=r"needs iOS18, not iOS17.*palette4"):
        compress_graph(graph, recipe, target="iOS17")


def test_a_recipe_and_a_search_exclude_each_other(odd, samples, tmp_path):
    for limits in ({"recipe": "int8", "budget": 1000}, {"budget": 1, "min_agreement": 0.9}):
        with pytest.raises(ConfigError, match="not both"):
            exported(odd, tmp_path / "a.mlpackage", calibration=samples, **limits)
