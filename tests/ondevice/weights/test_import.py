"""A checkpoint in another format becomes a saved model."""

import hashlib
import json
import os

import mlx.core as mx
import pytest

from ondevice import create_model
from ondevice.cli import run
from ondevice.errors import ConfigError, OutputError, WeightsError
from ondevice.tasks.import_weights import import_weights
from ondevice.weights.folder import SHIPPED
from tests.support.torchfiles import nano, weights

X = mx.random.normal((1, 64, 64, 3), key=mx.random.key(0))


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "official.pth.tar"
    path.write_bytes(weights(nano()))
    return path


def test_what_was_in_torch_computes_the_same_in_a_saved_folder(checkpoint, tmp_path):
    model = import_weights(checkpoint, "shvit_nano", tmp_path / "out")
    wanted = create_model("shvit_nano", weights={k: mx.array(a) for k, a in nano().items()})(X)
    assert mx.array_equal(model(X), wanted)
    assert mx.array_equal(create_model(str(tmp_path / "out"))(X), wanted)


def test_an_import_says_where_the_weights_are_from(checkpoint, tmp_path):
    info = import_weights(checkpoint, "shvit_nano", tmp_path / "out").info
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert info.provenance == f"Imported from official.pth.tar, SHA-256 {digest}."
    assert info.source == ""


def test_an_import_may_be_half_precision(checkpoint, tmp_path):
    import_weights(checkpoint, "shvit_nano", tmp_path / "full")
    import_weights(checkpoint, "shvit_nano", tmp_path / "half", dtype=mx.float16)
    full, half = ((tmp_path / f / "model.safetensors").stat().st_size for f in ("full", "half"))
    assert half < 0.52 * full


def test_classes_may_differ_from_the_models_own(tmp_path):
    flowers = SHIPPED / "shvit_nano.flowers" / "model.safetensors"
    with pytest.raises(
        WeightsError, match=r"head\.linear\.bias has shape \(5,\), expected \(10,\)"
    ):
        import_weights(flowers, "shvit_nano", tmp_path / "out")
    assert os.listdir(tmp_path) == []
    model = import_weights(flowers, "shvit_nano", tmp_path / "out", num_classes=5)
    assert mx.array_equal(model(X), create_model("shvit_nano.flowers")(X))


def test_what_exists_is_kept_unless_told(checkpoint, tmp_path):
    import_weights(checkpoint, "shvit_nano", tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        import_weights(checkpoint, "shvit_nano", tmp_path / "out")
    import_weights(checkpoint, "shvit_nano", tmp_path / "out", force=True)


def test_a_folder_is_no_name(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="is a folder; expected a model's name"):
        import_weights(checkpoint, str(tmp_path), tmp_path / "out")


def test_the_command_reports_what_it_wrote(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["import", str(checkpoint), "--model", "shvit_nano", "--out", str(out), "--json"]
    assert run(args) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {
        "model": "shvit_nano",
        "out": str(out),
        "arrays": 316,
        "bytes": sum(file.stat().st_size for file in out.iterdir()),
        "license": "mit",
    }
    assert run(args) == 2
    assert "exists; use --force" in capsys.readouterr().err
    assert run([*args, "--force"]) == 0


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_the_command_refuses_in_one_line(name, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"no checkpoint")
    args = ["--model", "shvit_nano", "--out", str(tmp_path / "out")]
    assert run(["import", str(tmp_path / name), *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert os.listdir(tmp_path) == [name]
