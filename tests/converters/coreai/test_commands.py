"""``export``, ``verify`` and ``inspect`` of both formats, alone and beside each other."""

from __future__ import annotations

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from PIL import Image

import ondevice
from converters import export, export_module, load_package, verify
from converters.coreai import authoring, lowerings as lowerings, registry
from converters.verification import against
from ondevice.cli import run
from ondevice.errors import ConfigError, OutputError, UnsupportedOpError

NAME = "shvit_nano.cifar10"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A Core ML and a Core AI package of one float32 export."""
    folder = tmp_path_factory.mktemp("both")
    paths = folder / "m.mlpackage", folder / "m.aimodel"
    export(ondevice.create_model(NAME), paths[0], also=paths[1], precision="float32")
    return paths


def test_a_model_is_exported_verified_and_inspected(tmp_path, capsys):
    path = str(tmp_path / "m.aimodel")
    assert run(["export", NAME, "--out", path, "--gelu", "tanh"]) == 0
    assert "outputs     probabilities, logits" in capsys.readouterr().out
    assert run(["verify", path, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = [step["name"] for step in report["steps"]]
    assert names == ["package float32", "package float16", "as saved"]
    assert report["steps"][0]["comparisons"][0]["relative_error"] < 2e-6
    assert len(report["steps"][2]["deviations"]) > 180
    assert any("only macOS can hand an image" in note for note in report["notes"])
    assert report["versions"]["coreai-core"] == "1.0.0b3"
    assert run(["inspect", path]) == 0
    out = capsys.readouterr().out
    assert "iOS27 and later" in out
    assert "conv2d 63" in out


def test_packages_of_both_formats_are_evaluated_and_verified_on_a_folder(
    both, tmp_path, capsys
):
    rng = np.random.default_rng(0)
    for i, label in enumerate(("cat", "cat", "ship")):
        (tmp_path / label).mkdir(exist_ok=True)
        pixels = rng.integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / label / f"{i}.png")
    names = [NAME, *map(str, both)]
    assert run(["evaluate", *names, "--images", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    mlx, *packages = said["models"]
    assert mlx["images"] == 3
    for found, name in zip(packages, names[1:], strict=True):
        assert found["name"] == name
        assert found["confusion"] == mlx["confusion"]
        assert found["calibration_error"] == pytest.approx(mlx["calibration_error"], abs=1e-4)
    assert run(["verify", names[2], "--images", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 3


def test_both_formats_are_compared_in_a_table(tmp_path, capsys):
    paths = [tmp_path / "m.mlpackage", tmp_path / "m.aimodel"]
    line = ["export", NAME, "--target", "iOS18", "--recipe", "palette4"]
    line += [word for path in paths for word in ("--out", str(path))]
    assert run(line) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["package", "bytes", "operations", "seconds", "outputs"]
    for row, path in zip(rows, paths, strict=False):
        package = load_package(path)
        name, size, operations, seconds, _ = row.split(maxsplit=4)
        assert (name, size) == (str(path), f"{package.size:,}")
        assert int(operations) == len(package.operations)
        assert 0 < float(seconds) < 60
    assert run([*line, "--force", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [p["package"] for p in found["packages"]] == list(map(str, paths))
    assert found["bits_per_weight"] < 5


def test_a_budget_holds_for_both(tmp_path):
    net = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)).eval()
    samples = list(np.random.default_rng(0).normal(size=(8, 4, 64)).astype("f"))
    paths = [tmp_path / "m.mlpackage", tmp_path / "m.aimodel"]
    options = {"budget": 40_000, "calibration": samples}
    export_module(net, mx.array(samples[0]), paths[0], also=[paths[1]], **options)
    packages = [load_package(path) for path in paths]
    assert 32_000 < max(package.size for package in packages) <= 40_000
    formats = [{n: w.format for n, w in p.weights.items()} for p in packages]
    assert formats[0] == formats[1]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def __call__(self, x):
        return self.second(nn.softmax(self.first(x), axis=-1))


X = mx.zeros((4, 6))


@pytest.mark.parametrize("taken", ["m.mlpackage", "m.aimodel"])
def test_where_one_path_is_taken_none_is_written(taken, tmp_path):
    (tmp_path / taken).mkdir()
    (tmp_path / taken / "file").touch()
    with pytest.raises(OutputError, match="exists"):
        export_module(Net().eval(), X, tmp_path / "m.mlpackage", also=tmp_path / "m.aimodel")
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_where_one_format_fails_none_is_written(tmp_path, monkeypatch):
    def fails(module, path):
        raise UnsupportedOpError("no")

    monkeypatch.setattr(authoring, "write_program", fails)
    with pytest.raises(UnsupportedOpError):
        export_module(Net().eval(), X, tmp_path / "m.mlpackage", also=tmp_path / "m.aimodel")
    assert not list(tmp_path.iterdir())


REFUSED = {
    "a target": (["m.aimodel"], {"target": "iOS18"}, "no option target of Core AI"),
    "one format twice": (["m.aimodel", "n.aimodel"], {}, "another .aimodel is written already"),
    "no format": (["m.aimodel", "n.onnx"], {}, "does not end in .mlpackage or .aimodel"),
    "no such form": (["m.aimodel"], {"attention": "x"}, "no attention 'x'; there are"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_impossible_is_one_line(case, tmp_path):
    (path, *also), options, said = REFUSED[case]
    options = {**options, "also": [tmp_path / name for name in also]}
    with pytest.raises(ConfigError, match=said) as caught:
        export_module(Net().eval(), X, tmp_path / path, **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", [1, -1], ids=["Core ML first", "Core AI first"])
def test_two_runtimes_agree_on_every_value(order, both, capsys):
    first, second = both[::order]
    line = ["verify", str(first), "--against", str(second), "--no-baselines"]
    assert run(line) == 0
    assert f"against {second.name}: " in capsys.readouterr().out
    [image] = ondevice.create_model(NAME).signature.samples(1)
    given = load_package(first).signature.read(image)
    found = against.agreement(load_package(first), load_package(second), given)
    assert found.values > 180
    assert found.worst_error < 2e-5 < found.tolerance == 1e-4
    assert not found.failures


def test_the_first_operation_that_differs_is_named(tmp_path, monkeypatch):
    """The lowering of softmax made another in one format only."""
    mx.random.seed(2)
    net, xs = Net().eval(), np.random.default_rng(0).normal(size=(1, 4, 6)).astype("f")
    paths = tmp_path / "m.mlpackage", tmp_path / "m.aimodel"
    right = registry.lowering("Softmax")
    monkeypatch.setitem(
        registry._LOWERINGS, "Softmax", lambda node, x, axis: right(node, x, axis=0)
    )
    export_module(net, X, paths[0], also=paths[1], precision="float32")
    report = verify(net, paths[0], list(xs), against=paths[1])
    assert report.against.first == "softmax softmax"
    assert report.failures == report.against.failures
    assert "softmax softmax is the first to differ" in report.failures[0]
    assert report.to_dict()["against"]["first_error"] > 0.1


def test_packages_of_other_inputs_are_not_compared(both, tmp_path):
    other = export_module(Sum().eval(), [X, X], tmp_path / "sum.aimodel")
    with pytest.raises(ConfigError, match=r"takes image; .* takes input_0, input_1"):
        verify(ondevice.create_model(NAME), both[0], _images(), against=other)
    other = export_module(nn.ReLU().eval(), X, tmp_path / "relu.aimodel")
    with pytest.raises(ConfigError, match="no value of one name and shape"):
        verify(Net().eval(), _saved(tmp_path), [np.ones((4, 6), "f")], against=other)


def _images():
    return ondevice.create_model(NAME).signature.samples(1)


def _saved(folder):
    return export_module(Net().eval(), X, folder / "net.mlpackage", output_names="y")


class Sum(nn.Module):
    def __call__(self, x, y):
        return x + y


def test_what_is_no_number_on_one_side_differs():
    a, b = np.array([1.0, np.nan, 3.0]), np.array([1.0, np.nan, 3.0])
    assert against.error(a, b) == 0
    assert against.error(np.ones(3), b) == float("inf")
    assert against.error(np.ones(4) * 1.001, np.ones(4)) == pytest.approx(0.01)


@pytest.mark.parametrize("suffix", [".mlpackage", ".aimodel"])
def test_a_compressed_text_encoder_is_verified(suffix, tmp_path):
    """Its positions are computed while it is traced, and have no path in the model."""
    from ondevice.models.clip_text import example_tokens

    from ...support import clips

    model = ondevice.create_model("mobileclip_b_text", **clips.TEXT, vocab=clips.VOCAB)
    model = clips.scrambled(model, seed=3)
    texts = [np.array(row)[None] for row in example_tokens(model.config, texts=8)]
    options = {"recipe": "int8", "calibration": texts}
    path = export(model, tmp_path / f"t{suffix}", **options)
    verify(model, path, texts).require()


class Nothing(nn.Module):
    def __call__(self, x):
        return x[:, :0]


def test_an_empty_output_is_no_traceback(tmp_path):
    path = export_module(Nothing().eval(), X, tmp_path / "m.aimodel", precision="float32")
    assert verify(Nothing().eval(), path, [np.ones((4, 6), "f")]).passed
    with pytest.raises(UnsupportedOpError, match="no input or output without elements"):
        export_module(Nothing().eval(), X, tmp_path / "m.mlpackage")
