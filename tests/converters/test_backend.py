"""A format that nothing knows of goes through export, verify and inspect."""

from __future__ import annotations

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import backend, export_module, load_package, verify
from converters.verification.inspect import inspect
from ondevice.cli import run
from ondevice.errors import ConfigError, OutputError, PackageError, UnsupportedOpError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def __call__(self, x):
        return self.second(nn.relu(self.first(x)) * 2 + 1)


X = mx.zeros((4, 6))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(backend.BACKENDS, ".toy", "tests.support.toy_backend")


def test_a_package_of_the_toy_computes_what_the_module_computes(toy, tmp_path):
    net = Net().eval()
    path = export_module(net, X, tmp_path / "net.toy", input_names="x", precision="float32")
    samples = list(np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float32))
    report = verify(net, path, samples, baselines=True).require()
    assert [step.name for step in report.steps] == ["package float32", "as saved"]
    assert all(c.relative_error < 1e-6 for c in report.comparisons)
    assert [d.op for d in report.as_saved.deviations] == ["Linear", "Relu", "Linear"]


def test_a_wrong_weight_in_the_toy_is_found(toy, tmp_path):
    net = Net().eval()
    path = export_module(net, X, tmp_path / "net.toy", precision="float32")
    said = json.loads((path / "graph.json").read_text())
    said["constants"]["first.bias"] = [5.0] * 8
    (path / "graph.json").write_text(json.dumps(said))
    report = verify(net, path, [np.ones((4, 6), np.float32)], baselines=True)
    assert report.failures
    assert report.as_saved.jump.name == said["nodes"][0][2]


def test_a_package_of_the_toy_is_inspected(toy, tmp_path, capsys):
    path = export_module(Net().eval(), X, tmp_path / "net.toy", precision="float32")
    found = inspect(load_package(path))
    assert found.operations == {"Linear": 2, "Relu": 1}
    assert sorted(w.name for w in found.weights if w.size > 8) == [
        "first.weight",
        "second.weight",
    ]
    assert run(["inspect", str(path)]) == 0
    assert "3 operations" in capsys.readouterr().out


def test_what_the_toy_has_not_is_refused_and_nothing_is_written(toy, tmp_path):
    net, path = nn.Sequential(nn.Linear(6, 8), nn.Softmax()).eval(), tmp_path / "net.toy"
    with pytest.raises(UnsupportedOpError, match="Softmax"):
        export_module(net, X, path)
    with pytest.raises(ConfigError, match="no option target of toy; there are"):
        export_module(Net().eval(), X, path, target="iOS17")
    assert not list(tmp_path.iterdir())
    path.mkdir()
    with pytest.raises(OutputError):
        export_module(Net().eval(), X, path)


def test_a_suffix_that_nobody_knows_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"x\.toy does not end in \.mlpackage"):
        export_module(Net().eval(), X, tmp_path / "x.toy")
    with pytest.raises(PackageError, match=r"x\.toy: does not end in \.mlpackage"):
        load_package(tmp_path / "x.toy")
