"""Swift sources that use Apple's frameworks: parsed, and checked against declarations."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from converters import export
from converters.app.write import App, write_app
from converters.backend import load_package
from ondevice import create_model

from .. import ROOT
from ..ondevice.models.test_dense import small

CHECK = ROOT / "apps/check.sh"

needs_swift = pytest.mark.skipif(
    not shutil.which("swiftc"), reason="no swiftc: no Swift source was checked"
)


@pytest.fixture(scope="module")
def apps(tmp_path_factory):
    """A project of each kind that is written, and one with a mistake."""
    folder = tmp_path_factory.mktemp("apps")
    nano = create_model("shvit_nano.cifar10", pretrained=True)
    package = load_package(export(nano, folder / "nano.mlpackage", golden=False))
    plain = write_app(package, folder / "Plain", App("Plain"))
    packed = write_app(package, folder / "Packed", App("Packed", asset_pack=True))
    vectors = export(nano, folder / "vectors.mlpackage", outputs="embedding", golden=False)
    values = write_app(load_package(vectors), folder / "Values", App("Values"))
    dense = []
    for name, model in {
        "Boxes": create_model("light_detr_shvit_nano", num_classes=3),
        "Mask": create_model("light_fpn_shvit_nano", num_classes=3),
        "Depth": small("depth_anything_v2_small"),
    }.items():
        path = export(model, folder / f"{name}.mlpackage", golden=False)
        dense.append(write_app(load_package(path), folder / name, App(name)))
    wrong = shutil.copytree(plain, folder / "Wrong")
    quick = wrong / "App/QuickStart.swift"
    quick.write_text(quick.read_text().replace("model.predictions(of:", "model.classes(of:"))
    return plain, packed, values, *dense, wrong


@needs_swift
@pytest.mark.slow
def test_all_sources_are_sound_and_a_mistake_is_found(apps):
    folders = [ROOT / "apps/ios", *apps]
    done = subprocess.run(
        ["bash", CHECK, *folders], capture_output=True, text=True, timeout=900
    )
    checked = [line.removeprefix("checked: ") for line in done.stdout.splitlines()]
    *sound, wrong = map(str, folders)
    assert checked == sound, done.stderr
    assert done.returncode != 0
    assert f"{wrong}/App/QuickStart.swift" in done.stderr
    assert "has no member 'classes'" in done.stderr


def test_without_a_compiler_it_says_that_nothing_was_checked(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "mktemp", "rm"):
        (tools / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        [tools / "bash", CHECK], env={"PATH": str(tools)}, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert done.stderr == "no swiftc: nothing was checked\n"


def test_the_declarations_name_the_pages_they_are_written_from():
    for stub in (ROOT / "apps/stubs").glob("*.swift"):
        assert stub.read_text().startswith("// https://developer.apple.com/documentation/")
