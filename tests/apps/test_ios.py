"""OnDevice Camera: what is committed is what its generator writes, and the model is right."""

from __future__ import annotations

import base64
import json
import plistlib
import runpy

import numpy as np
import pytest

from converters import load_package
from ondevice import create_model
from ondevice.image.preprocess import preprocess, resize_and_crop
from ondevice.signature.samples import sample_images

from .. import ROOT
from .xcode import in_phase, opened, paths

IOS = ROOT / "apps/ios"
MODEL = IOS / "Model/shvit_nano_cifar10.mlpackage"


@pytest.fixture(scope="module")
def golden():
    return json.loads((IOS / "Model/shvit_nano_cifar10.golden.json").read_text())


def test_the_project_is_as_its_generator_writes_it(tmp_path):
    project = runpy.run_path(str(IOS / "generate.py"))["project"](IOS)
    project.write(tmp_path)
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) > 5
    for path in written:
        here = IOS / path.relative_to(tmp_path)
        assert here.read_bytes() == path.read_bytes(), f"run {IOS.name}/generate.py: {here}"


def test_all_of_its_files_are_in_the_project():
    xcode = opened(IOS)
    named = {p for p in paths(xcode).values() if p}
    assert [p for p in named if not (IOS / p).exists()] == []
    swift = {f"App/{p.name}" for p in (IOS / "App").glob("*.swift")}
    assert len(swift) > 8
    assert in_phase(xcode, "Sources") == swift | {"Model/shvit_nano_cifar10.mlpackage"}
    (local,) = xcode.objects.get_objects_in_section("XCLocalSwiftPackageReference")
    assert (IOS / local["relativePath"] / "Package.swift").is_file()


def test_the_system_is_told_why_it_asks():
    info = plistlib.loads((IOS / "App/Info.plist").read_bytes())
    for key in ("NSCameraUsageDescription", "NSPhotoLibraryUsageDescription"):
        assert "on this device" in info[key]
    (kind,) = info["UTImportedTypeDeclarations"]
    assert kind["UTTypeTagSpecification"]["public.filename-extension"] == ["mlpackage"]


def test_the_golden_outputs_are_those_of_the_committed_package(golden):
    package = load_package(MODEL)
    image, pixels = (
        np.frombuffer(base64.b64decode(golden[key]["rgb"]), np.uint8).reshape(
            golden[key]["height"], golden[key]["width"], 3
        )
        for key in ("image", "pixels")
    )
    assert np.array_equal(resize_and_crop(image, package.preprocess), pixels)
    got = package.predict({"image": pixels})["logits"]
    assert np.allclose(got.reshape(-1), golden["outputs"]["logits"]["values"], rtol=1e-6)


def test_the_committed_package_is_the_shipped_model():
    package, model = load_package(MODEL), create_model("shvit_nano.cifar10", pretrained=True)
    assert package.labels == model.info.labels
    assert package.preprocess == model.info.preprocess
    for photo in sample_images(120):
        pixels = package.resize_and_crop(photo)
        mine = np.array(model(preprocess(photo, model.info.preprocess)))
        theirs = package.predict({"image": pixels})["logits"]
        assert np.abs(mine - theirs).max() < 0.2 * np.abs(mine).max()
