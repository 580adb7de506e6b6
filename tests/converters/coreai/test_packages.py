"""Whole models as ``.aimodel``: written, read back, run by Apple's runtime."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from converters.interface import array_interface, image_interface, text_interface
from PIL import Image

import ondevice
from converters.compress.plan import Request
from converters.compress.recipe import PRESETS
from converters.coreai.loaded import Feature, load
from converters.coreai.package import save, size_of
from converters.coreml.loaded import load_package
from converters.coreml.settings import Settings
from converters.export import export, export_module
from ondevice.errors import ConfigError, PackageError
from ondevice.weights.output import folder_bytes

from ... import ROOT
from ...support import clips
from .kit import built, front, saved

SIZE = 96
HALF = Settings(target="iOS18")


@pytest.fixture(scope="module")
def model():
    return ondevice.create_model("shvit_nano.cifar10")


@pytest.fixture(scope="module")
def picture():
    levels = np.random.default_rng(0).integers(0, 256, (SIZE // 8, SIZE // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(levels).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def wanted(interface, picture):
    """What MLX gives, by name."""
    results = interface.fn(mx.array(picture[None].astype(np.float32)))
    results = results if isinstance(results, list) else [results]
    return dict(zip(interface.output_names, map(np.array, results), strict=True))


@pytest.fixture(scope="module")
def exact(model, tmp_path_factory):
    """All outputs, float32."""
    interface = image_interface(model, outputs=("logits", "embedding", "features", "tokens"))
    parts, interface, _ = front(interface)
    path = tmp_path_factory.mktemp("exact") / "m.aimodel"
    labels = json.dumps(interface.labels)
    return saved(parts, path, author="x", version="1", **{"ondevice.labels": labels}), interface


@pytest.fixture(scope="module")
def half(model, tmp_path_factory):
    parts, interface, _ = front(image_interface(model), HALF)
    return saved(parts, tmp_path_factory.mktemp("half") / "m.aimodel"), interface


@pytest.fixture(scope="module")
def core_ml(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("coreml") / "m.mlpackage"
    return load_package(export(model, path, target="iOS18"))


def test_every_output_is_what_mlx_gives(exact, picture):
    program, interface = exact
    given = program.predict({"image": picture})
    for name, reference in wanted(interface, picture).items():
        reference = reference.transpose(0, 3, 1, 2) if reference.ndim == 4 else reference
        assert given[name].dtype == np.float32
        assert np.abs(given[name] - reference).max() <= 1e-5 * reference.std()


def test_half_precision_is_55_db_from_mlx(half, picture):
    program, interface = half
    given, reference = program.predict({"image": picture}), wanted(interface, picture)
    noise = np.square(given["logits"] - reference["logits"]).mean()
    assert 10 * np.log10(np.ptp(reference["logits"]) ** 2 / noise) >= 55


def test_it_says_what_goes_in_and_out(exact):
    program, interface = exact
    assert program.functions == ["main"]
    assert program.inputs == {"image": Feature("image", "image", (SIZE, SIZE), "RGB")}
    assert list(program.outputs) == list(interface.output_names)
    assert program.outputs["features_2"] == Feature(
        "features_2", "array", (1, 160, 2, 2), "float32"
    )
    assert program.labels == interface.labels
    assert program.metadata["author"] == "x"
    assert program.metadata["version"] == "1"


def test_a_pillow_image_is_taken_as_well(exact, picture):
    program, _ = exact
    first, second = (
        program.predict({"image": picture}),
        program.predict({"image": Image.fromarray(picture)}),
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


def test_values_have_the_names_that_core_ml_packages_give_them(half, core_ml, picture):
    program, _ = half
    ours = dict(program.walk({"image": picture}))
    theirs = dict(core_ml.walk({"image": picture}))
    named = {n: v for n, v in theirs.items() if not n.startswith(("step_", "c")) and n in ours}
    assert len(named) >= 150
    for name, value in named.items():
        scale = np.abs(value).max() + 1e-3
        assert ours[name].shape == np.shape(value)
        assert np.abs(ours[name] - value).max() <= 0.03 * scale, name


def test_what_walks_is_what_is_predicted(half, picture):
    program, _ = half
    values = dict(program.walk({"image": picture}))
    for name, value in program.predict({"image": picture}).items():
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
    counts = program.stored().counts()
    assert counts["group_norm"] == 6  # as a composite, which devices have an operation for
    assert counts["conv2d"] == 62
    assert "constant" not in counts


CODE = """
import sys
from pathlib import Path
import mlx.core as mx, mlx.nn as nn, numpy as np
sys.path.insert(0, {root!r})
from tests.converters.coreai.kit import built, saved
from converters.interface import array_interface
mx.random.seed(3)
net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 64))
mx.eval(net.parameters())
saved(built(array_interface(net.eval(), mx.zeros((1, 8, 8, 3)))), Path({path!r}), author="a")
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


def test_several_functions_share_their_weights(model, tmp_path, picture):
    parts, interfaces = {}, {}
    for size in (64, SIZE):
        part, interface, _ = front(image_interface(model, size=size))
        parts[f"size_{size}"], interfaces[size] = part, interface
    program = saved(parts, tmp_path / "two.aimodel")
    assert program.functions == ["size_64", "size_96"]
    assert folder_bytes(program.path) < 1.05 * size_of(parts["size_96"])
    for size, interface in interfaces.items():
        small = np.asarray(Image.fromarray(picture).resize((size, size)))
        given = program.predict({"image": small}, function=f"size_{size}")["logits"]
        reference = wanted(interface, small)["logits"]
        assert np.abs(given - reference).max() <= 1e-5 * reference.std()


def test_an_array_goes_in_normalized_and_comes_out_in_float32(model, tmp_path, picture):
    parts, interface, _ = front(image_interface(model, input="array"), HALF)
    program = saved(parts, tmp_path / "array.aimodel")
    assert program.inputs == {
        "images": Feature("images", "array", (1, 3, SIZE, SIZE), "float32")
    }
    numbers = interface.picture.given(picture[None])
    given = program.predict({"images": numbers.transpose(0, 3, 1, 2)})["logits"]
    reference = np.array(interface.fn(mx.array(numbers))[1])
    assert np.abs(given - reference).max() <= 0.02 * reference.std()


class Odd(nn.Module):
    """Outputs that are an input, a constant, and one value twice."""

    def __call__(self, x):
        y = x * 2
        return [y, x, y, mx.arange(3) * 0.5]


def test_outputs_may_be_inputs_constants_and_twice_the_same(tmp_path):
    program = saved(
        built(array_interface(Odd().eval(), mx.zeros((2, 3)))), tmp_path / "odd.aimodel"
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = program.predict({"input": x})
    for name, reference in zip(given, (2 * x, x, 2 * x, np.arange(3) * 0.5), strict=True):
        assert np.array_equal(given[name], reference), name
    assert list(program.outputs) == [f"output_{i}" for i in range(4)]


def test_an_input_that_python_cannot_name_is_one_line():
    interface = array_interface(nn.ReLU().eval(), mx.zeros((2, 3)), input_names=["class"])
    with pytest.raises(ConfigError, match="no input called 'class'") as caught:
        built(interface)
    assert "\n" not in str(caught.value)


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
    example = mx.array(samples[0])
    interface = array_interface(net, example)
    request = {"recipe": preset, "calibration": samples}
    parts, _, _ = front(interface, HALF, Request(**request))
    program = saved(parts, tmp_path / "m.aimodel")
    path = export_module(
        net, mx.array(samples[0]), tmp_path / "m.mlpackage", target="iOS18", **request
    )
    ours = program.predict({"input": samples[1]})["output"]
    theirs = load_package(path).predict({"input": samples[1]})["output"]
    # A rounding that falls the other way is one step of eight bits in an activation.
    limit = 0.05 if "a8" in preset else 0.01
    assert np.abs(ours - theirs).max() <= limit * theirs.std()
    assert {w.format for w in program.weights.values()} - {"fp16"}


BAD = {
    "another name": ({"picture": 0}, "takes image; given picture"),
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


BROKEN = {
    "no folder": (lambda path: None, "has no main.mlirb, main.hash, metadata.json"),
    "a byte flipped": (lambda path: flip(path / "main.mlirb"), "main.mlirb is damaged"),
    "cut": (lambda path: cut(path / "main.mlirb"), "main.mlirb is damaged"),
    "no program": (lambda path: (path / "main.mlirb").unlink(), "has no main.mlirb"),
    "no JSON": (lambda path: (path / "metadata.json").write_text("{"), "cannot read it"),
    "a list": (lambda path: (path / "metadata.json").write_text("[]"), "is not a table"),
}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_one_line(case, tmp_path):
    path = tmp_path / "m.aimodel"
    breaks, said = BROKEN[case]
    if case != "no folder":
        save(built(array_interface(nn.ReLU().eval(), mx.zeros((2, 3)))), path, {})
        breaks(path)
    with pytest.raises(PackageError, match=said) as caught:
        load(path)
    assert "\n" not in str(caught.value)


FOREIGN = {"text": lambda code: b"no MLIR", "cut": lambda code: code[: len(code) // 2]}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_program_that_is_none_is_one_line(case, tmp_path):
    """coreai-core would end the process."""
    path = tmp_path / "m.aimodel"
    save(built(array_interface(nn.ReLU().eval(), mx.zeros((2, 3)))), path, {})
    code = FOREIGN[case]((path / "main.mlirb").read_bytes())
    (path / "main.mlirb").write_bytes(code)
    (path / "main.hash").write_bytes(hashlib.sha256(code).digest())
    with pytest.raises(PackageError, match="cannot read it") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mobileclip_s0", "mobileclip_b"])
@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("float16", 0.03)])
def test_a_text_encoder_computes_the_same(name, precision, limit, tmp_path):
    model = clips.scrambled(
        ondevice.create_model(f"{name}_text", **clips.TEXT, vocab=clips.VOCAB), seed=3
    )
    parts, interface, _ = front(
        text_interface(model), Settings(target="iOS18", precision=precision)
    )
    program = saved(parts, tmp_path / "t.aimodel")
    assert program.inputs == {"text": Feature("text", "array", (1, 77), "int32")}
    given = program.predict({"text": np.array(interface.inputs[0])})["embedding"]
    reference = np.array(interface.fn(*interface.inputs))
    assert np.abs(given - reference).max() <= limit * reference.std()


@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("float16", 0.01)])
def test_attention_is_one_composite_and_computes_the_same(precision, limit, tmp_path):
    mx.random.seed(11)
    net = nn.TransformerEncoder(2, 32, 4, mlp_dims=64)
    mx.eval(net.parameters())
    x = mx.random.normal((1, 9, 32))
    mask = mx.zeros((9, 9))
    interface = array_interface(Masked(net).eval(), [x, mask])
    settings = Settings(target="iOS18", precision=precision, attention="fused")
    program = saved(front(interface, settings)[0], tmp_path / "a.aimodel")
    counts = program.stored().counts()
    assert counts["scaled_dot_product_attention"] == 2
    assert "softmax" not in counts
    given = program.predict({"input_0": np.array(x), "input_1": np.array(mask)})["output"]
    reference = np.array(net(x, mask))
    assert np.abs(given - reference).max() <= limit * reference.std()


class Masked(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def __call__(self, x, mask):
        return self.net(x, mask)
