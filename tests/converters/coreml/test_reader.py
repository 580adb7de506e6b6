"""Broken, foreign and hostile packages: one clear line each, and nothing else happens."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from converters import load_package
from converters.coreml.reader import quiet
from ondevice.errors import PackageError
from tests.support.mil import mb, save

_RNG = np.random.default_rng(5)
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    def body(x):
        x = mb.linear(x=x, weight=_RNG.normal(size=(64, 32)).astype(np.float32))
        return mb.relu(x=x, name="y")

    path = tmp_path_factory.mktemp("reader") / "good.mlpackage"
    return save(body, {"x": ((1, 32), "float32")}, path)


@pytest.fixture
def package(saved, tmp_path):
    """A copy to break."""
    return shutil.copytree(saved, tmp_path / "x.mlpackage")


def refusal(package) -> str:
    """The one line with which the package is refused, at the latest when it is run."""
    with pytest.raises(PackageError) as caught:
        load_package(package).predict({"x": np.zeros((1, 32))})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(package))
    return message.removeprefix(f"{package}: ")


def change_manifest(package, **changes):
    path = package / "Manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_spec(package, change):
    with quiet():
        from coremltools import proto
    spec = proto.Model_pb2.Model()
    spec.ParseFromString((package / MODEL).read_bytes())
    change(spec)
    (package / MODEL).write_bytes(spec.SerializeToString())


def operations(spec):
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return block.operations


def blob(spec):
    value, *_ = (
        op.attributes["val"].blobFileValue
        for op in operations(spec)
        if op.attributes["val"].WhichOneof("value") == "blobFileValue"
    )
    return value


def test_a_good_package_runs(package):
    assert load_package(package).predict({"x": np.ones((1, 32))})["y"].shape == (1, 64)


def test_a_path_that_is_no_package(tmp_path):
    assert refusal(tmp_path / "none.mlpackage") == "no such package"
    (tmp_path / "photo.jpg").write_bytes(b"x")
    assert "does not end in .mlpackage" in refusal(tmp_path / "photo.jpg")
    assert "does not end in .mlpackage" in refusal(tmp_path)
    (tmp_path / "photo.mlpackage").write_bytes(b"x")
    line = "is not an .mlpackage, which is a folder"
    assert refusal(tmp_path / "photo.mlpackage") == line
    (tmp_path / "empty.mlpackage").mkdir()
    line = "is not an .mlpackage: it has no Manifest.json"
    assert refusal(tmp_path / "empty.mlpackage") == line
    (tmp_path / "x.mlmodelc").mkdir()
    assert "compiled model" in refusal(tmp_path / "x.mlmodelc")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"])
def test_an_unreadable_manifest(package, text):
    (package / "Manifest.json").write_text(text, encoding="latin-1")
    assert refusal(package).startswith("unreadable Manifest.json: ")


@pytest.mark.parametrize("text", ["[]", "7", "null"])
def test_a_manifest_that_is_not_an_object(package, text):
    (package / "Manifest.json").write_text(text)
    assert refusal(package) == "its Manifest.json is not an object"


@pytest.mark.parametrize(
    "changes",
    [
        {"rootModelIdentifier": "other"},
        {"rootModelIdentifier": None},
        {"itemInfoEntries": []},
        {"rootModelIdentifier": "a", "itemInfoEntries": {"a": "text"}},
        {"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": 7}}},
    ],
)
def test_a_manifest_without_a_root_model(package, changes):
    change_manifest(package, **changes)
    assert refusal(package) == "its Manifest.json names no root model"


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../../other.mlmodel", "com.apple.CoreML/../../Manifest.json"]
)
def test_a_manifest_that_points_elsewhere(package, path):
    entry = {"path": path}
    change_manifest(package, rootModelIdentifier="a", itemInfoEntries={"a": entry})
    assert refusal(package) == f"{path!r} points outside the package"


def test_a_null_byte_in_a_path(package):
    entry = {"path": "a\0b"}
    change_manifest(package, rootModelIdentifier="a", itemInfoEntries={"a": entry})
    assert refusal(package) == "'a\\x00b' points outside the package"


@pytest.mark.parametrize("name", [MODEL, WEIGHTS])
def test_a_link_out_of_the_package(package, tmp_path, name):
    elsewhere = (package / name).rename(tmp_path / "elsewhere")
    (package / name).symlink_to(elsewhere)
    assert refusal(package).endswith("points outside the package")


def test_a_missing_model(package):
    (package / MODEL).unlink()
    assert "named in Manifest.json, is missing" in refusal(package)


@pytest.mark.parametrize("content", [b"\xff" * 99, b"no protobuf"])
def test_a_corrupt_model(package, content):
    (package / MODEL).write_bytes(content)
    assert refusal(package).startswith("the model specification is corrupt")


def test_an_empty_model(package):
    (package / MODEL).write_bytes(b"")
    assert refusal(package) == "is a model of no type, not an ML program"


def test_the_older_neural_network_format(package):
    change_spec(package, lambda spec: spec.neuralNetwork.SetInParent())
    assert refusal(package) == "is a neuralNetwork, not an ML program"


def test_missing_weights(package):
    (package / WEIGHTS).unlink()
    assert refusal(package) == "weights/weight.bin: No such file or directory"


@pytest.mark.parametrize("size", [0, 70, 4000])
def test_truncated_weights(package, size):
    with (package / WEIGHTS).open("r+b") as file:
        file.truncate(size)
    assert refusal(package).startswith("weights/weight.bin is truncated: ")


def test_weights_that_begin_elsewhere(package):
    change_spec(package, lambda spec: setattr(blob(spec), "offset", 96))
    assert refusal(package) == "weights/weight.bin is corrupt: no weight begins at byte 96"
    change_spec(package, lambda spec: setattr(blob(spec), "offset", 2**62))
    assert "truncated: no weight at" in refusal(package)
    change_spec(package, lambda spec: setattr(blob(spec), "offset", 2**64 - 1))
    assert "truncated: no weight at" in refusal(package)


@pytest.mark.parametrize("name", ["@model_path/../../x", "/etc/hostname", "@model_path/x.bin"])
def test_weights_in_another_place(package, name):
    change_spec(package, lambda spec: setattr(blob(spec), "fileName", name))
    assert "outside the package" in refusal(package) or "not in the" in refusal(package)


def test_weights_of_another_shape(package):
    def grow(spec):
        for op in operations(spec):
            if op.attributes["val"].WhichOneof("value") == "blobFileValue":
                for type_ in (op.attributes["val"].type, op.outputs[0].type):
                    type_.tensorType.dimensions[0].constant.size = 2**40

    change_spec(package, grow)
    assert "cannot reshape array" in refusal(package)


def test_an_operation_nobody_knows(package):
    change_spec(package, lambda spec: setattr(operations(spec)[-1], "type", "fancy_relu"))
    assert "fancy_relu" in refusal(package)
    assert load_package(package).operations[-1] == "fancy_relu"  # what it has can be said


def test_operations_that_the_reference_has_not_are_all_listed(tmp_path):
    def body(x):
        band = mb.band_part(x=x, lower=1, upper=1)
        return mb.band_part(
            x=mb.reshape_like(x=x, ref_tensors=[band], begins=[0], ends=[2], end_masks=[False]),
            lower=0,
            upper=0,
        )

    path = save(body, {"x": ((3, 3), "float32")}, tmp_path / "x.mlpackage", fuse=False)
    with pytest.raises(PackageError, match=r"cannot evaluate band_part \(x2\), reshape_like"):
        load_package(path).predict({"x": np.zeros((3, 3))})


def test_a_program_that_does_not_fit_together(package):
    def cut(spec):
        del operations(spec)[-2]

    change_spec(package, cut)
    assert "not found" in refusal(package)


def test_any_flipped_byte_is_refused_or_harmless(package):
    good = (package / MODEL).read_bytes()
    outcomes = set()
    for _ in range(150):
        bad = bytearray(good)
        bad[_RNG.integers(len(bad))] ^= 1 << int(_RNG.integers(8))
        (package / MODEL).write_bytes(bad)
        try:
            load_package(package).predict({"x": np.zeros((1, 32))})
            outcomes.add("harmless")
        except PackageError as error:
            outcomes.add("refused in several lines" if "\n" in str(error) else "refused")
    assert outcomes == {"harmless", "refused"}
