"""The golden image beside a package: what it says is what the package computes."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from converters import export, export_module, load_package
from converters.function import golden
from ondevice import create_model
from ondevice.config import Preprocess
from ondevice.errors import OutputError, PackageError
from ondevice.image.preprocess import preprocess, resize_and_crop


@pytest.fixture(scope="module")
def nano():
    return create_model("shvit_nano.cifar10", pretrained=True)


def image_of(said):
    flat = np.frombuffer(base64.b64decode(said["rgb"]), np.uint8)
    return flat.reshape(said["height"], said["width"], 3)


def off(wanted, got):
    """The largest difference over the largest value."""
    values = np.array(wanted["values"]).reshape(wanted["shape"])
    return np.abs(np.asarray(got, np.float32) - values).max() / np.abs(values).max()


@pytest.mark.parametrize(
    ("options", "within"),
    [({}, 0.01), ({"recipe": "palette4"}, 1e-5), ({"input": "array"}, 0.01)],
    ids=["float16", "palette4", "array"],
)
def test_what_it_says_is_what_the_package_computes(nano, tmp_path, options, within):
    package = load_package(export(nano, tmp_path / "nano.mlpackage", **options))
    said = json.loads((tmp_path / "nano.golden.json").read_text())
    image = image_of(said["image"])
    assert np.array_equal(image, golden.golden_image())
    assert Preprocess.from_dict(said["contract"]) == package.preprocess
    pixels = image_of(said["pixels"])
    assert np.array_equal(pixels, resize_and_crop(image, package.preprocess))
    got = package.predict(package.named([pixels]))
    assert said["outputs"].keys() == {"logits"}
    assert said["outputs"]["logits"]["shape"] == list(got["logits"].shape)
    assert off(said["outputs"]["logits"], got["logits"]) < within
    assert within < said["tolerance"]
    found = np.array(preprocess(image, package.preprocess))[0].transpose(2, 0, 1).reshape(-1)
    normalized = said["normalized"]
    assert np.allclose(found[normalized["positions"]], normalized["values"], atol=1e-6)
    assert np.ptp(normalized["values"]) > 1


def test_mistakes_of_an_app_are_beyond_the_tolerance(nano, tmp_path):
    package = load_package(export(nano, tmp_path / "nano.mlpackage"))
    said = json.loads((tmp_path / "nano.golden.json").read_text())
    pixels = image_of(said["pixels"])
    for wrong in (pixels[..., ::-1], pixels[:, ::-1], pixels // 2, np.roll(pixels, 4, axis=0)):
        got = package.predict({"image": np.ascontiguousarray(wrong)})["logits"]
        assert off(said["outputs"]["logits"], got) > said["tolerance"]


def test_maps_are_channels_first_and_what_is_large_is_left_out(nano, tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "MAX_ELEMENTS", 2_000)
    path = export(nano, tmp_path / "nano.mlpackage", outputs=["features", "embedding"])
    said = json.loads((tmp_path / "nano.golden.json").read_text())
    package = load_package(path)
    got = package.predict({"image": package.resize_and_crop(golden.golden_image())})
    large = [name for name in package.arrays if got[name].size > 2_000]
    assert said["left_out"] == large
    assert large
    assert said["outputs"].keys() == set(package.arrays) - set(large)
    for name, one in said["outputs"].items():
        assert one["shape"] == list(got[name].shape)
        assert off(one, got[name]) < 0.02


def test_two_formats_of_a_name_share_it_and_it_is_written_anew(nano, tmp_path):
    export(nano, tmp_path / "nano.mlpackage", size=64)
    before = (tmp_path / "nano.golden.json").read_text()
    export(nano, tmp_path / "nano.mlpackage", force=True)
    assert (tmp_path / "nano.golden.json").read_text() != before


def test_what_is_no_golden_image_stays(nano, tmp_path):
    own = tmp_path / "nano.golden.json"
    own.write_text("my notes")
    with pytest.raises(OutputError, match=r"nano\.golden\.json exists; use --force"):
        export(nano, tmp_path / "nano.mlpackage")
    assert own.read_text() == "my notes"
    assert list(tmp_path.iterdir()) == [own]


def test_nothing_is_left_where_it_cannot_be_made(nano, tmp_path, monkeypatch):
    def fails(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(golden.Golden, "write", fails)
    with pytest.raises(OutputError, match="No space left"):
        export(nano, tmp_path / "nano.mlpackage")
    assert not list(tmp_path.iterdir())


def test_a_package_without_an_image_has_none(tmp_path):
    import mlx.core as mx
    import mlx.nn as nn

    path = export_module(nn.Linear(4, 2).eval(), mx.zeros((1, 4)), tmp_path / "net.mlpackage")
    assert [p.name for p in tmp_path.iterdir()] == ["net.mlpackage"]
    with pytest.raises(PackageError, match="no preprocessing contract of one image"):
        golden.golden_of_package(load_package(path))


def test_it_can_be_left_out(nano, tmp_path):
    export(nano, tmp_path / "nano.mlpackage", golden=False)
    assert [p.name for p in tmp_path.iterdir()] == ["nano.mlpackage"]
