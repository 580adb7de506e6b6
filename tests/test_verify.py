"""The ladder from the model to the package: what passes, what fails, and where it says so."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from PIL import Image

from converters import export, ladder, load_package, verify
from converters.coreml import lowerings as lowerings, registry
from converters.coreml.device import UNITS, _places, measure
from converters.coreml.inspect import inspect
from converters.figures import EXACT, compare
from converters.html import to_html, write_html
from converters.trail import Deviation, deviations, first_jump
from ondevice import create_model
from ondevice.cli import run
from ondevice.cli.verify import patterns, print_report
from ondevice.errors import ConfigError, GateError, ImageError, OutputError, PackageError
from tests.mil import mb

NAME = "shvit_nano.cifar10"


@pytest.fixture(scope="module")
def nano():
    return create_model(NAME)


@pytest.fixture(scope="module")
def package(nano, tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "nano.mlpackage"
    return load_package(export(nano, path))


@pytest.fixture(scope="module")
def fresh(nano, package):
    with ladder.fresh_packages(nano, package) as packages:
        yield packages


@pytest.fixture
def climbed(fresh, monkeypatch):
    """The model's fresh packages, made once."""
    module = import_module("converters.verify")  # the package has a function of that name
    monkeypatch.setattr(module, "fresh_packages", lambda *_: nullcontext(fresh))


@pytest.fixture(scope="module")
def report(nano, package):
    return verify(nano, package, patterns(96), ladder=True)


@pytest.fixture(scope="module")
def other():
    """The model with one convolution half as large again."""
    model = create_model(NAME)
    conv = model.stages[1].blocks[0].conv.m.conv
    conv.weight = conv.weight * 1.5
    return model


@pytest.fixture(scope="module")
def failed(other, package):
    return verify(other, package, patterns(96), ladder=True)


def damaged(package, folder, weight):
    """A copy of the package with one stored weight's bytes zeroed."""
    copy = folder / "damaged.mlpackage"
    shutil.copytree(package.path, copy)
    opened = load_package(copy)
    blob = next(op.blobs[0] for op in opened.stored().everything if op.name == weight)
    with blob.file.open("r+b") as stream:
        stream.seek(blob.offset)
        stream.write(bytes(blob.bytes))
    return load_package(copy)


def test_every_step_passes_its_gate(report):
    float32, float16, saved = report.require().steps
    assert [s.name for s in report.steps] == ["package float32", "package float16", "as saved"]
    assert float32.comparisons[0].relative_error <= 1e-5 == float32.gates["relative_error"]
    assert float16.comparisons[0].psnr_db >= 55 == float16.gates["psnr_db"]
    assert saved.comparisons[0].top1_agreement == 1
    assert saved.gates == {"psnr_db": 55, "top1_agreement": 0.998}


def test_what_was_saved_is_what_a_fresh_export_gives(report):
    _, float16, saved = report.steps
    assert saved.comparisons == float16.comparisons
    assert saved.package_bytes == pytest.approx(float16.package_bytes, rel=0.01)


def test_every_layer_is_compared_by_name(report, package):
    trail = report.as_saved.trail
    names = {d.name for d in trail}
    assert len(trail) > 0.9 * len(package.operations)
    assert {"patch_embed_0", "stages_1_blocks_0_conv", "logits"} <= names
    assert 40 < min(d.after_db for d in trail) < 90


def test_the_float32_packages_layers_are_held_to_those_of_mlx(report, nano):
    trail = report.steps[0].trail
    assert len(trail) >= 62  # every convolution
    assert min(d.after_db for d in trail) > 120


def test_a_wrong_lowering_fails_the_first_step_and_is_named(monkeypatch, tmp_path):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)
    ).eval()
    monkeypatch.setitem(registry._LOWERINGS, "Relu", lambda node, x: mb.sigmoid(x=x))
    path = export(net, mx.zeros((1, 16, 16, 3)), tmp_path / "net.mlpackage")
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    first = verify(net, path, [x], ladder=True).steps[0]
    assert not first.passed
    assert (first.jump.op, first.jump.name) == ("conv", "layers_4")  # reads the relu


def test_without_the_ladder_there_is_one_step(nano, package):
    (step,) = verify(nano, package, patterns(96)[:1]).steps
    assert step.name == "as saved"
    assert step.trail == ()


def test_other_weights_fail_only_as_saved_and_the_layer_is_named(failed):
    assert [step.passed for step in failed.steps] == [True, True, False]
    jump = failed.as_saved.jump
    assert (jump.op, jump.name) == ("conv", "stages_1_blocks_0_conv")
    assert jump.before_db > 60 > 50 > jump.after_db
    assert failed.notes == ("the package was made from other weights than this model has",)
    with pytest.raises(GateError, match="as saved: logits psnr_db"):
        failed.require()


def test_a_weight_changed_on_disk_is_found(nano, package, climbed, tmp_path):
    weight = "stages_2_blocks_1_ffn_m_pw1_weight"
    report = verify(nano, damaged(package, tmp_path, weight), patterns(96)[:2], ladder=True)
    assert [step.passed for step in report.steps] == [True, True, False]
    assert report.as_saved.jump.name == weight.removesuffix("_weight")


def test_the_first_jump_is_not_the_first_rounding():
    trail = [
        Deviation("a", "add", EXACT, 75.0),  # the rounding of exact input
        Deviation("b", "conv", 75.0, 64.0),
        Deviation("c", "mul", 64.0, 20.0),
        Deviation("d", "mul", 20.0, -10.0),
    ]
    assert first_jump(trail, "float16").name == "c"
    assert first_jump(trail[:2], "float16").name == "b"  # none is tenfold: the largest
    assert first_jump([], "float16") is None


def test_the_worst_image_is_named(nano, package, tmp_path):
    calm = Image.new("RGB", (96, 96), (90, 120, 90))
    paths = []
    for name, picture in (("a.png", calm), ("b.png", Image.fromarray(patterns(96)[0]))):
        picture.save(tmp_path / name)
        paths.append(tmp_path / name)
    (step,) = verify(nano, package, paths).steps
    rows = {row.image: row.psnr_db for row in step.comparisons[0].per_image}
    assert rows.keys() == {"a.png", "b.png"}
    assert step.worst_image == min(rows, key=rows.get)


def test_nan_is_a_failure_and_the_worst_there_is(nano, package, monkeypatch):
    images = patterns(96)[:3]
    predict = package.predict

    def broken(inputs, **options):
        result = predict(inputs, **options)
        if inputs["image"] is images[1]:
            result["logits"] = result["logits"] * np.nan
        return result

    monkeypatch.setattr(package, "predict", broken)
    report = verify(nano, package, images)
    assert report.as_saved.worst_image == "image 1"
    assert "as saved: logits has NaN or infinite values" in report.failures
    json.dumps(report.to_dict(), allow_nan=False)


def test_gates_can_be_replaced_one_by_one(nano, package):
    image = patterns(96)[:1]
    strict = verify(nano, package, image, gates={"psnr_db": 90, "cosine": 0.5})
    assert strict.gates == {"psnr_db": 90, "top1_agreement": 0.998, "cosine": 0.5}
    assert not strict.passed
    assert verify(nano, package, image, gates={"psnr_db": 30}).passed
    with pytest.raises(ConfigError, match="no gate accuracy; there are psnr_db"):
        verify(nano, package, image, gates={"accuracy": 1})


def test_a_compressed_package_is_held_to_the_models_decisions(nano, package):
    metadata = package.saved.spec.description.metadata.userDefined
    metadata["ondevice.recipe"] = "{}"
    try:
        report = verify(nano, package, patterns(96)[:1])
    finally:
        del metadata["ondevice.recipe"]
    assert report.gates == {"top1_agreement": 0.9}


def test_any_module_climbs_the_ladder(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Conv2d(8, 4, 3)).eval()
    path = export(net, mx.zeros((1, 16, 16, 3)), tmp_path / "net.mlpackage")
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    report = verify(net, path, [x], ladder=True)
    assert len(report.require().steps) == 3
    assert report.steps[1].comparisons[0].output == "output"


def test_a_model_of_plain_levels_climbs_the_ladder(tmp_path):
    """FastVLM's: 1/255 goes into the first convolution, which then takes the levels."""
    model = create_model(NAME)
    plain = replace(model.info.preprocess, mean=(0, 0, 0), std=(1, 1, 1))
    model.info = replace(model.info, preprocess=plain)
    path = export(model, tmp_path / "x.mlpackage")
    assert len(verify(model, path, patterns(96)[:1], ladder=True).require().steps) == 3


def test_a_float32_package_needs_no_float16_step(nano, tmp_path):
    path = export(nano, tmp_path / "x.mlpackage", precision="float32", outputs=["embedding"])
    report = verify(nano, path, patterns(96)[:1], ladder=True)
    assert [s.name for s in report.require().steps] == ["package float32", "as saved"]
    assert report.as_saved.gates["relative_error"] == 1e-5


def test_values_stored_scaled_by_a_power_of_two_are_the_same_values(package, monkeypatch):
    walk = package.walk

    def scaled(inputs):
        for name, value in walk(inputs):
            yield name, value / 64 if name == "patch_embed_2" else value

    given = {"image": patterns(96)[0]}
    other = load_package(package.path)
    monkeypatch.setattr(other, "walk", scaled)
    found = {d.name: d.after_db for d in deviations(other, package, given)}
    assert set(found.values()) == {EXACT}


def test_compare_knows_exact_broken_and_empty_arrays():
    ones = np.ones(4, np.float32)
    assert compare(ones, ones) == EXACT
    assert compare(ones, ones * np.nan) == 0
    assert compare(np.float32([-np.inf, 1]), np.float32([-4e4, 1])) == EXACT  # a mask
    assert compare(ones, ones * 0.9) == pytest.approx(20, abs=1e-5)


# What is not this model's package


def test_other_labels_fail(nano, package):
    model = create_model(NAME)
    model.info = _relabelled(nano.info)
    report = verify(model, package, patterns(96)[:1])
    assert report.problems == ("class 3 is 'cat' in the package and 'tiger' in the model",)
    assert not report.passed


def _relabelled(info):
    labels = list(info.labels)
    labels[3] = "tiger"
    return replace(info, labels=tuple(labels))


def test_a_package_of_other_outputs_or_inputs_is_one_line(nano, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3)).eval()
    x = mx.zeros((1, 16, 16, 3))
    path = export(net, x, tmp_path / "a.mlpackage", output_names=["heat"])
    with pytest.raises(ConfigError, match=r"a\.mlpackage gives heat, which no model here"):
        verify(nano, path, patterns(96))
    path = export(net, x, tmp_path / "b.mlpackage", output_names=["logits"])
    with pytest.raises(ConfigError, match=r"takes input \(array\); shvit_nano"):
        verify(nano, path, patterns(96))


# The report as HTML


class _Checked(HTMLParser):
    """Every tag closed in order; what it refers to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in {"src", "href", "xlink:href", "action"}]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


def test_the_page_has_the_figures_and_loads_nothing(report, package):
    text = to_html(report, inspect(package))
    page = _Checked(text)
    assert page.links == []
    assert "script" not in page.tags
    assert "http" not in text.replace(report.package, "").split("<h2>Package")[0]
    for step in report.steps:
        assert f"{step.comparisons[0].psnr_db:.1f}" in page.text
        assert step.name in page.text
    assert page.tags.count("polyline") == 3
    assert page.tags.count("circle") == sum(len(step.trail) for step in report.steps)
    for word in ("passed", "mit", "image 3", "173 operations", "coremltools 9.0", "gate 55 dB"):
        assert word in page.text


def test_the_page_marks_where_the_error_jumps(failed, package):
    text = to_html(failed, inspect(package))
    _Checked(text)
    assert text.count('class="mark"') == 1
    assert "conv stages_1_blocks_0_conv" in text
    assert "failed" in text


def test_names_from_a_strangers_package_are_only_text(report, package):
    evil = "<script>alert(1)</script>"
    found = replace(inspect(package), metadata={evil: evil, "ondevice.versions": "[1"})
    text = to_html(replace(report, package=evil, notes=(evil,)), found)
    assert "script" not in _Checked(text).tags


def test_the_page_shows_what_a_mac_measured(report, package):
    unit = {"units": "CPU_AND_NE", "first_load_ms": 310.0, "median_ms": 1.25, "spread_ms": 0.1}
    unit |= {"placement": {"Neural Engine": 170, "CPU": 3}, "fallen_off": ["cast image_cast"]}
    page = _Checked(
        to_html(replace(report, device={"name": "Apple M2", "units": [unit]}), inspect(package))
    )
    for word in ("Apple M2", "310.0", "1.25", "Neural Engine 170, CPU 3", "cast image_cast"):
        assert word in page.text


def test_the_page_is_written_whole_or_not_at_all(report, package, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_html(report, package, path)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="--force"):
        write_html(report, package, path)
    monkeypatch.setattr("converters.html.to_html", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_html(report, package, path, force=True)
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


# The command


def test_json_has_a_stable_shape(report):
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found.keys() == {
        *("model", "package", "images", "steps", "problems", "notes", "versions", "device"),
        *("passed", "failures"),
    }
    step = found["steps"][-1]
    assert step.keys() == {
        *("name", "precision", "backend", "package_bytes", "comparisons", "gates", "trail"),
        *("passed", "failures", "worst_image", "jump"),
    }
    assert step["trail"][0].keys() == {"name", "op", "before_db", "after_db"}
    assert step["comparisons"][0].keys() == {
        *("output", "cosine", "psnr_db", "max_error", "relative_error", "finite"),
        *("worst_image", "top1_agreement", "top5_agreement", "per_image"),
    }


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(patterns(120)[3]).save(folder / "good.png")
    return folder


def test_the_command_climbs_and_writes_a_page(package, climbed, pictures, tmp_path, capsys):
    page = tmp_path / "report.html"
    line = ["verify", str(package.path), "--images", str(pictures), "--html", str(page)]
    assert run(line) == 0
    out = capsys.readouterr().out
    assert [row.split("  ")[0] for row in out.splitlines()[2:5]] == [
        "package float32",
        "package float16",
        "as saved",
    ]
    assert "good.png" in out
    assert "passed" in _Checked(page.read_text(encoding="utf-8")).text
    assert run([*line, "--no-ladder"]) == 2
    assert "--force" in capsys.readouterr().err


def test_a_missed_gate_is_status_1(package, pictures, capsys):
    line = ["verify", str(package.path), "--images", str(pictures), "--no-ladder"]
    assert run([*line, "--gate", "psnr_db=199"]) == 1
    out = capsys.readouterr().out
    assert "FAILED: as saved: logits psnr_db" in out
    assert "(worst: good.png)" in out


def test_a_failure_says_where_it_begins(failed, capsys):
    print_report(failed)
    out, err = capsys.readouterr()
    assert "the error first jumps at conv stages_1_blocks_0_conv: " in out
    assert "passed" not in out
    assert err.startswith("warning: ")


def test_bad_pictures_are_left_out_and_named(package, pictures, capsys):
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff but no picture")
    line = ["verify", str(package.path), "--no-ladder", "--images", str(pictures), "--json"]
    assert run(line) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["images"] == 1
    assert err.startswith("error: ")
    assert "broken.jpg" in err
    assert err.count("\n") == 1


def test_the_limit_is_of_test_patterns_too(package, capsys):
    assert run(["verify", str(package.path), "--no-ladder", "--limit", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1


def test_in_the_library_bad_pictures_are_an_error(nano, package, pictures):
    (pictures / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        verify(nano, package, sorted(pictures.iterdir()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--images", "nowhere"], "not a folder"),
        (["--images", "empty"], "no pictures"),
        (["--images", "bad"], "x.png is not an image"),
        (["--gate", "psnr_db"], "psnr_db=50"),
        (["--gate", "beauty=1"], "no gate beauty"),
        (["--model", "shvit_s9"], "shvit_s9"),
        (["--html", "empty/file.txt/report.html"], "cannot write"),
    ],
)
def test_bad_options_are_one_line(options, said, package, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file.txt").write_text("")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no")
    assert run(["verify", str(package.path), "--no-ladder", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def _truncate(path):
    weights = next(path.rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes()[:5000])


def _no_manifest(path):
    (path / "Manifest.json").unlink()


def _path_trick(path):
    manifest = path / "Manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("com.apple.CoreML/model.mlmodel", "../../secret"))


@pytest.mark.parametrize(
    ("change", "said"),
    [(_truncate, "truncated"), (_no_manifest, "Manifest"), (_path_trick, "outside")],
)
def test_a_broken_package_is_one_line(change, said, package, tmp_path, capsys):
    copy = tmp_path / "x.mlpackage"
    shutil.copytree(package.path, copy)
    change(copy)
    assert run(["verify", str(copy)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


# On a Mac


def test_placement_is_counted_by_what_core_ml_prefers():
    class MLCPUComputeDevice: ...

    class MLNeuralEngineComputeDevice: ...

    def operation(kind, name):
        return SimpleNamespace(operator_name=kind, outputs=[SimpleNamespace(name=name)])

    places = {
        "const": None,
        "cast": MLCPUComputeDevice(),
        "conv": MLNeuralEngineComputeDevice(),
    }
    usage = {k: v and SimpleNamespace(preferred_compute_device=v) for k, v in places.items()}
    block = SimpleNamespace(operations=[operation(kind, "x") for kind in places])
    functions = {"main": SimpleNamespace(block=block)}
    plan = SimpleNamespace(
        model_structure=SimpleNamespace(program=SimpleNamespace(functions=functions)),
        get_compute_device_usage_for_mlprogram_operation=lambda op: usage[op.operator_name],
    )
    assert list(_places(plan, "main")) == [("cast x", "CPU"), ("conv x", "Neural Engine")]


@pytest.mark.skipif(sys.platform == "darwin", reason="says what it needs elsewhere")
def test_core_ml_is_refused_elsewhere_before_any_work(nano, package):
    with pytest.raises(PackageError, match="needs macOS"):
        verify(nano, package, iter(()), backend="coreml")


@pytest.mark.coreml
@pytest.mark.skipif(sys.platform != "darwin", reason="needs macOS")
def test_every_compute_unit_gives_the_models_numbers(nano, package):
    report = verify(nano, package, patterns(96), backend="coreml").require()
    assert [s.name for s in report.steps[1:]] == [f"Core ML {unit}" for unit in UNITS]
    assert {unit["units"] for unit in report.device["units"]} == set(UNITS)


@pytest.mark.coreml
@pytest.mark.skipif(sys.platform != "darwin", reason="needs macOS")
def test_latency_and_placement_are_measured(package):
    figures = measure(package, {"image": patterns(96)[0]})
    for unit in figures.units:
        assert 0 < unit.median_ms < unit.first_load_ms
        assert sum(unit.placement.values()) >= len(package.operations) / 2
