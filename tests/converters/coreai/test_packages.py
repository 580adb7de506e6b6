"""Whole models as ``.aimodel``: written, read back, run by Apple's runtime."""

from __future__ import annotations

import subprocess
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from PIL import Image

import ondevice
from converters import export, export_module, load_package
from converters.compress.recipe import PRESETS
from converters.program import Feature
from ondevice.errors import ConfigError, PackageError
from ondevice.models.clip_text import example_tokens
from ondevice.weights.output import folder_bytes

from ... import ROOT
from ...support import clips
from ...support.lowered import function_of

SIZE = 96
ALL = ("logits", "embedding", "features", "tokens")


@pytest.fixture(scope="module")
def model():
    return ondevice.create_model("shvit_nano.cifar10")


@pytest.fixture(scope="module")
def photo():
    """(96, 96, 3) smooth noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE // 8, SIZE // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def wanted(function, photo):
    """What MLX gives, by name."""
    results = function.fn(mx.array(photo[None].astype(np.float32)))
    results = results if isinstance(results, list) else [results]
    return dict(zip(function.output_names, map(np.array, results), strict=True))


@pytest.fixture(scope="module")
def exact(model, tmp_path_factory):
    """All outputs, float32, and what was traced."""
    path = tmp_path_factory.mktemp("exact") / "m.aimodel"
    package = load_package(export(model, path, outputs=ALL, precision="float32"))
    return package, function_of(model, outputs=ALL)


@pytest.fixture(scope="module")
def half(model, tmp_path_factory):
    package = load_package(export(model, tmp_path_factory.mktemp("half") / "m.aimodel"))
    return package, function_of(model)


@pytest.fixture(scope="module")
def core_ml(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("coreml") / "m.mlpackage"
    return load_package(export(model, path, target="iOS18"))


def test_every_output_is_what_mlx_gives(exact, photo):
    package, function = exact
    given = package.predict({"image": photo})
    for name, reference in wanted(function, photo).items():
        reference = reference.transpose(0, 3, 1, 2) if reference.ndim == 4 else reference
        assert given[name].dtype == np.float32
        assert np.abs(given[name] - reference).max() <= 1e-5 * reference.std()


def test_half_precision_is_55_db_from_mlx(half, photo):
    program, function = half
    given, reference = program.predict({"image": photo}), wanted(function, photo)
    noise = np.square(given["logits"] - reference["logits"]).mean()
    assert 10 * np.log10(np.ptp(reference["logits"]) ** 2 / noise) >= 55


def test_it_says_what_goes_in_and_out(exact):
    program, function = exact
    assert program.functions == ["main"]
    assert program.inputs == {"image": Feature("image", "image", (SIZE, SIZE), "RGB")}
    assert list(program.outputs) == list(function.output_names)
    assert program.system == "iOS27"
    assert program.outputs["features_2"] == Feature(
        "features_2", "array", (1, 160, 2, 2), "float32"
    )
    assert program.labels == function.labels
    assert program.metadata["license"] == "mit"
    assert program.settings == {
        "precision": "float32",
        "attention": "matmul",
        "gelu": "exact",
    }
    assert program.preprocess.size == SIZE
    [said] = program.caveats()
    assert "only macOS can hand an image to Core AI" in said


def test_a_pillow_image_is_taken_as_well(exact, photo):
    program, _ = exact
    first, second = (
        program.predict({"image": photo}),
        program.predict({"image": Image.fromarray(photo)}),
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_image_goes_where_the_pixels_go(exact):
    """Of the function of an image only its reading is not run on Linux: all of it is here."""
    program, _ = exact
    raw = program._raw["main"]
    kinds = [op.kind for op in raw.operations if op.kind != "constant"]
    assert kinds == "image_to_tensor cast transpose reshape invoke output".split()
    call = next(op for op in raw.operations if op.kind == "invoke")
    assert call.callee == "main_pixels"
    assert raw.results == program._raw["main_pixels"].results


def test_values_have_the_names_that_core_ml_packages_give_them(half, core_ml, photo):
    program, _ = half
    ours = dict(program.walk({"image": photo}))
    theirs = dict(core_ml.walk({"image": photo}))
    named = {n: v for n, v in theirs.items() if not n.startswith(("step_", "c")) and n in ours}
    assert len(named) >= 150
    for name, value in named.items():
        scale = np.abs(value).max() + 1e-3
        assert ours[name].shape == np.shape(value)
        assert np.abs(ours[name] - value).max() <= 0.03 * scale, name


def test_what_walks_is_what_is_predicted(half, photo):
    program, _ = half
    values = dict(program.walk({"image": photo}))
    for name, value in program.predict({"image": photo}).items():
        assert np.array_equal(values[name], value)


def test_weights_have_their_paths_and_values(half, model):
    program, _ = half
    name = "stages_1_blocks_0_mixer_m_qkv_weight"
    assert program.weights[name].format == "fp16"
    assert program.weights[name].shape == program.array(name).shape
    total = sum(weight.bytes for weight in program.weights.values())
    assert 0.95 * folder_bytes(program.path) < total < folder_bytes(program.path)
    with pytest.raises(PackageError, match="no weight 'nothing'"):
        program.array("nothing")


def test_it_is_as_small_as_core_mls(half, core_ml):
    ours, theirs = (folder_bytes(p.path) for p in (half[0], core_ml))
    assert 0.95 * theirs < ours < 1.05 * theirs


def test_operations_are_counted(half):
    program, _ = half
    operations = program.operations
    assert operations.count("group_norm") == 6  # a composite: devices have an operation for it
    assert operations.count("conv2d") == 63  # the head among them
    assert "constant" not in operations


CODE = """
import sys
import mlx.core as mx, mlx.nn as nn
sys.path.insert(0, {root!r})
from converters import export_module
mx.random.seed(3)
net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 64))
mx.eval(net.parameters())
export_module(net.eval(), mx.zeros((1, 8, 8, 3)), {path!r})
"""


def test_equal_programs_are_equal_files(tmp_path):
    """In two processes, called from two places: no name is random, no path is remembered."""
    made = []
    for number, before in enumerate(["", "\n\n\n"]):
        path = tmp_path / f"{number}.aimodel"
        script = tmp_path / f"a_script_{number}.py"
        script.write_text(before + CODE.format(root=str(ROOT), path=str(path)))
        subprocess.run([sys.executable, str(script)], check=True, capture_output=True)
        made.append({p.name: p.read_bytes() for p in path.iterdir()})
    assert made[0] == made[1]
    assert b"a_script" not in made[0]["main.mlirb"]
    assert set(made[0]) == {"main.mlirb", "main.hash", "metadata.json"}


def test_several_functions_share_their_weights(model, half, tmp_path, photo):
    sizes = (SIZE, 64)
    path = export(model, tmp_path / "two.aimodel", size=sizes, precision="float32")
    program = load_package(path)
    assert program.functions == ["size_96", "size_64"]
    assert program.default_function == "size_96"
    assert program.labels == half[0].labels
    assert folder_bytes(path) < 1.05 * 2 * folder_bytes(half[0].path)
    for size in sizes:
        small = np.asarray(Image.fromarray(photo).resize((size, size)))
        given = program.predict({"image": small}, function=f"size_{size}")["logits"]
        reference = wanted(function_of(model, size=size), small)["logits"]
        assert np.abs(given - reference).max() <= 1e-5 * reference.std()


def test_an_array_goes_in_normalized_and_comes_out_in_float32(model, half, tmp_path, photo):
    program = load_package(export(model, tmp_path / "array.aimodel", input="array"))
    assert program.inputs == {
        "images": Feature("images", "array", (1, 3, SIZE, SIZE), "float32")
    }
    assert program.caveats() == ()
    assert {f.dtype for f in program.outputs.values()} == {"float32"}
    given = program.predict({"images": photo})["logits"]
    reference = half[0].predict({"image": photo})["logits"]
    assert np.abs(given - reference).max() <= 0.02 * reference.std()


class Odd(nn.Module):
    """Outputs that are an input, a constant, and one value twice."""

    def __call__(self, x):
        y = x * 2
        return [y, x, y, mx.arange(3) * 0.5]


def test_outputs_may_be_inputs_constants_and_twice_the_same(tmp_path):
    path = tmp_path / "odd.aimodel"
    program = load_package(export_module(Odd().eval(), mx.zeros((2, 3)), path))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = program.predict({"input": x})
    for name, reference in zip(given, (2 * x, x, 2 * x, np.arange(3) * 0.5), strict=True):
        assert np.array_equal(given[name], reference), name
    assert list(program.outputs) == [f"output_{i}" for i in range(4)]


def test_an_input_that_python_cannot_name_has_another_name(tmp_path, caplog):
    names = {"input_names": ["class", "a b"], "output_names": "1st"}
    xs = [mx.ones((2, 3))] * 2
    path = export_module(Sum().eval(), xs, tmp_path / "n.aimodel", **names)
    program = load_package(path)
    assert ([*program.inputs], [*program.outputs]) == (["class_", "a_b"], ["var_1st"])
    assert (program.predict({"class_": xs[0], "a_b": xs[1]})["var_1st"] == 2).all()
    assert "'class' is called 'class_' in the package" in caplog.text
    with pytest.raises(ConfigError, match="'a_b', 'a b' would all be called 'a_b'"):
        export_module(Sum().eval(), xs, tmp_path / "o.aimodel", input_names=["a_b", "a b"])


class Sum(nn.Module):
    def __call__(self, x, y):
        return x + y


class Small(nn.Module):
    """Convolutions of three kinds and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.pointwise = nn.Conv2d(32, 64, 1)
        self.head = nn.Linear(64, 16)

    def __call__(self, x):
        x = nn.gelu(self.pointwise(nn.relu(self.depthwise(nn.relu(self.stem(x))))))
        return self.head(x.mean((1, 2)))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_what_the_core_ml_package_computes(preset, tmp_path):
    mx.random.seed(5)
    net = Small().eval()
    samples = list(np.random.default_rng(1).normal(size=(8, 1, 16, 16, 3)).astype(np.float32))
    path = export_module(
        net,
        mx.array(samples[0]),
        tmp_path / "m.mlpackage",
        also=tmp_path / "m.aimodel",
        target="iOS18",
        recipe=preset,
        calibration=samples,
    )
    core_ml, core_ai = load_package(path), load_package(tmp_path / "m.aimodel")
    ours = core_ai.predict({"input": samples[1]})["output"]
    theirs = core_ml.predict({"input": samples[1]})["output"]
    # A rounding that falls the other way is one step of eight bits in an activation.
    limit = 0.05 if "a8" in preset else 0.01
    assert np.abs(ours - theirs).max() <= limit * theirs.std()
    assert {w.format for w in core_ai.weights.values()} - {"fp16"}
    assert core_ai.metadata["ondevice.recipe"] == core_ml.metadata["ondevice.recipe"]


BAD = {
    "another name": ({"photo": 0}, "takes image; given photo"),
    "nothing": ({}, "takes image; given nothing"),
    "another size": ({"image": np.zeros((9, 9, 3), np.uint8)}, r"of shape \[96, 96, 3\]"),
    "floats": ({"image": np.zeros((SIZE, SIZE, 3))}, "pixels are uint8; given float64"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_input_is_one_line(case, half):
    given, said = BAD[case]
    with pytest.raises(PackageError, match=said) as caught:
        half[0].predict(given)
    assert "\n" not in str(caught.value)


def test_a_function_that_is_not_there_is_one_line(half):
    with pytest.raises(PackageError, match="no function 'other'; it has main"):
        half[0].predict({}, function="other")


@pytest.mark.parametrize("name", ["mobileclip_s0", "mobileclip_b"])
@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("float16", 0.03)])
def test_a_text_encoder_computes_the_same(name, precision, limit, tmp_path):
    model = ondevice.create_model(f"{name}_text", **clips.TEXT, vocab=clips.VOCAB)
    model = clips.scrambled(model, seed=3)
    program = load_package(export(model, tmp_path / "t.aimodel", precision=precision))
    assert program.inputs == {"text": Feature("text", "array", (1, 77), "int32")}
    assert program.caveats() == ()
    tokens = example_tokens(model.config, texts=1)
    given = program.predict({"text": tokens})["embedding"]
    reference = np.array(model(tokens))
    assert np.abs(given - reference).max() <= limit * reference.std()


@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("float16", 0.01)])
def test_attention_is_one_composite_and_computes_the_same(precision, limit, tmp_path):
    mx.random.seed(11)
    net = Masked(nn.TransformerEncoder(2, 32, 4, mlp_dims=64)).eval()
    mx.eval(net.parameters())
    xs = [mx.random.normal((1, 9, 32)), mx.zeros((9, 9))]
    options = {"precision": precision, "attention": "fused"}
    program = load_package(export_module(net, xs, tmp_path / "a.aimodel", **options))
    assert program.operations.count("scaled_dot_product_attention") == 2
    assert "softmax" not in program.operations
    given = program.predict({"input_0": xs[0], "input_1": xs[1]})["output"]
    reference = np.array(net(*xs))
    assert np.abs(given - reference).max() <= limit * reference.std()


class Masked(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def __call__(self, x, mask):
        return self.net(x, mask)
