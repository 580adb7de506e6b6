"""`ondevice app`: the project that it writes is whole, and says what the package computes."""

from __future__ import annotations

import base64
import json
import plistlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from converters import export, export_module, load_package
from converters.app.pbxproj import pbxproj
from converters.app.project import Project
from converters.app.write import App, write_app
from ondevice import create_model
from ondevice.errors import ConfigError
from ondevice.weights.output import folder_bytes

from ..ondevice.models.test_dense import small
from .xcode import in_phase, opened, paths, settings


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    nano = create_model("shvit_nano.flowers", pretrained=True)
    return export(nano, tmp_path_factory.mktemp("package") / "my flowers.v2.mlpackage")


@pytest.fixture(scope="module")
def project(package, tmp_path_factory):
    from ondevice.cli import run

    out = tmp_path_factory.mktemp("out") / "Flowers"
    assert run(["app", str(package), "--out", str(out)]) == 0
    return out


def test_every_file_that_the_project_names_is_there(project):
    xcode = opened(project)
    files = {p for p in paths(xcode).values() if p}
    assert {"Model/my_flowers_v2.mlpackage", "App/QuickStart.swift"} <= files
    assert [p for p in files if not (project / p).exists()] == []
    shown = {p for p in files if "." in p.rpartition("/")[2]}
    there = {p.relative_to(project).as_posix() for p in (project / "App").iterdir()}
    assert there | {"README.md"} <= shown


def test_every_file_is_built_as_xcode_has_to(project):
    xcode = opened(project)
    assert in_phase(xcode, "Sources") == {
        "App/App.swift",
        "App/ContentView.swift",
        "App/ModelLocation.swift",
        "App/QuickStart.swift",
        "App/Results.swift",
        "Model/my_flowers_v2.mlpackage",
    }
    assert in_phase(xcode, "Resources") == {
        "App/Assets.xcassets",
        "Model/my_flowers_v2.golden.json",
        "Model/labels.txt",
    }
    references = xcode.objects.get_objects_in_section("PBXFileReference")
    kinds = {r.path: r["lastKnownFileType"] for r in references if "lastKnownFileType" in r}
    assert kinds["my_flowers_v2.mlpackage"] == "folder.mlpackage"


def test_the_kit_is_a_local_package_whose_products_are_linked(project):
    xcode = opened(project)
    (local,) = xcode.objects.get_objects_in_section("XCLocalSwiftPackageReference")
    kit = project / local["relativePath"]
    manifest = (kit / "Package.swift").read_text()
    products = xcode.objects.get_objects_in_section("XCSwiftPackageProductDependency")
    names = {p["productName"] for p in products}
    assert names == {"OnDeviceCore", "OnDeviceCoreML"}
    for product in products:
        assert product["package"] == local.get_id()
        assert f'.library(name: "{product["productName"]}"' in manifest
        assert list((kit / "Sources" / product["productName"]).glob("*.swift"))
    assert in_phase(xcode, "Frameworks") == {p.get_id() for p in products}


def test_every_identifier_of_the_project_is_of_an_object(project):
    xcode = opened(project)
    text = (project / "Flowers.xcodeproj/project.pbxproj").read_text()
    keys = set(xcode.objects.get_keys())
    assert set(re.findall(r"\b[0-9A-F]{24}\b", text)) == keys
    assert len(keys) > 30
    scheme = (project / "Flowers.xcodeproj/xcshareddata/xcschemes/Flowers.xcscheme").read_text()
    (target,) = xcode.objects.get_targets()
    assert scheme.count(f'BlueprintIdentifier="{target.get_id()}"') == 3


def test_both_descriptions_of_the_project_agree(project):
    described = yaml.safe_load((project / "project.yml").read_text())["targets"]["Flowers"]
    xcode = opened(project)
    by_phase = {"sources": "Sources", "resources": "Resources"}
    for name, phase in by_phase.items():
        listed = {s["path"] for s in described["sources"] if s["buildPhase"] == name}
        assert listed == in_phase(xcode, phase)
    said = described["settings"]["base"]
    found = settings(xcode)
    assert {k: found[k] for k in said} == said


def test_property_lists_are_valid(project):
    info = plistlib.loads((project / "App/Info.plist").read_bytes())
    assert info["CFBundleDisplayName"] == "Flowers"
    for path in (project / "App/Assets.xcassets").rglob("Contents.json"):
        for image in json.loads(path.read_text()).get("images", []):
            assert (path.parent / image["filename"]).is_file()


def test_the_model_is_the_package_with_its_labels_and_golden_outputs(project, package):
    copied = load_package(project / "Model/my_flowers_v2.mlpackage")
    assert copied.size == folder_bytes(package)
    labels = (project / "Model/labels.txt").read_text().splitlines()
    assert tuple(labels) == copied.labels == load_package(package).labels
    said = json.loads((project / "Model/my_flowers_v2.golden.json").read_text())
    pixels = np.frombuffer(base64.b64decode(said["pixels"]["rgb"]), np.uint8)
    side = said["pixels"]["width"]
    got = copied.predict({"image": pixels.reshape(side, side, 3)})["logits"]
    assert np.allclose(got.reshape(-1), said["outputs"]["logits"]["values"], rtol=1e-6)
    assert "my_flowers_v2" in (project / "App/QuickStart.swift").read_text()


def test_no_word_of_a_template_is_left(project):
    for path in project.rglob("*"):
        if path.suffix in {".swift", ".md", ".yml"}:
            assert not re.search("__[A-Z]+__", path.read_text()), path


def test_the_same_command_writes_the_same_project(project, package, ondevice_, tmp_path):
    status, out, _ = ondevice_("app", package, "--out", tmp_path / "Flowers")
    assert status == 0
    assert "Flowers.xcodeproj: shvit_nano.flowers" in out
    for path in project.rglob("*"):
        if path.is_file():
            again = tmp_path / "Flowers" / path.relative_to(project)
            assert again.read_bytes() == path.read_bytes(), path


def test_a_name_of_a_model_is_exported(ondevice_, tmp_path):
    out = tmp_path / "Cats and Dogs"
    options = ("--bundle-id", "org.cats.app", "--json")
    status, said, _ = ondevice_("app", "shvit_nano.cifar10", "--out", out, *options)
    assert status == 0
    facts = json.loads(said)
    assert (facts["model"], facts["classes"]) == ("shvit_nano.cifar10", 10)
    assert Path(facts["project"]).is_dir()
    assert (out / "Model/shvit_nano_cifar10.mlpackage").is_dir()
    assert settings(opened(out))["PRODUCT_BUNDLE_IDENTIFIER"] == "org.cats.app"


def test_an_asset_pack_has_the_model_instead_of_the_app(package, ondevice_, tmp_path):
    out = tmp_path / "Flowers"
    assert ondevice_("app", package, "--out", out, "--asset-pack")[0] == 0
    assert not (out / "Model").exists()
    manifest = json.loads((out / "AssetPack/Manifest.json").read_text())
    (selector,) = manifest["fileSelectors"]
    files = [p for p in (out / "AssetPack" / selector["directory"]).rglob("*") if p.is_file()]
    contents = json.loads((out / "AssetPack/contents.json").read_text())
    assert contents["files"].keys() == {
        p.relative_to(out / "AssetPack").as_posix() for p in files
    }
    assert contents["bytes"] == sum(p.stat().st_size for p in files) > package.stat().st_size
    assert contents["license"] == load_package(package).metadata["license"]
    location = (out / "App/ModelLocation.swift").read_text()
    assert f'assetPack = "{manifest["assetPackID"]}"' in location
    assert settings(opened(out))["IPHONEOS_DEPLOYMENT_TARGET"] == "26.0"
    assert not [p for p in paths(opened(out)).values() if p.startswith("Model")]


def test_a_newer_system_is_asked_for_where_the_package_needs_it(ondevice_, tmp_path):
    nano = create_model("shvit_nano")
    new = export(nano, tmp_path / "new.mlpackage", target="iOS18")
    assert ondevice_("app", new, "--out", tmp_path / "New")[0] == 0
    assert settings(opened(tmp_path / "New"))["IPHONEOS_DEPLOYMENT_TARGET"] == "18.0"


TASKS = {  # model, outputs, and the function to copy
    "classes": ("shvit_nano", (), "func classify(_ photo: URL, count: Int = 5)"),
    "an embedding": ("shvit_nano", ("embedding",), "func values(of photo: URL)"),
    "boxes": ("light_detr_shvit_nano", (), "func detect(_ photo: URL)"),
    "scores without boxes": ("light_detr_shvit_nano", ("confidence",), "func values("),
    "a mask": ("light_fpn_shvit_nano", (), "func segment(_ photo: URL)"),
    "a mask as an image": ("light_fpn_shvit_nano", ("mask_image",), "func segment("),
    "colours of a mask": ("light_fpn_shvit_nano", ("mask_colours",), "func values("),
    "scores of a mask": ("light_fpn_shvit_nano", ("scores",), "func values("),
    "depth": ("depth_anything_v2_small", (), "func depth(_ photo: URL)"),
    "an array of depth": ("depth_anything_v2_small", ("depth_array",), "func depth("),
}


@pytest.mark.parametrize("case", TASKS)
def test_an_app_shows_what_its_model_is_for(case, tmp_path):
    name, outputs, function = TASKS[case]
    if name.startswith("depth"):
        model = small(name)
    else:
        model = create_model(name, num_classes=3)
        model.info = replace(model.info, labels=("cat", "dog", "emu"))
    given = {"outputs": list(outputs)} if outputs else {}
    package = export(model, tmp_path / "x.mlpackage", golden=False, **given)
    out = write_app(load_package(package), tmp_path / "App", App("App"))
    assert function in (out / "App/QuickStart.swift").read_text()
    shown = (out / "App/Results.swift").read_text()
    assert "func results(of pixels: RGBImage, by model: Model)" in shown
    assert ("predictions(for: pixels)" in shown) == (case == "classes")


REFUSED = {
    "no model": (["nothing_such"], "no model 'nothing_such'"),
    "no package": (["gone.mlpackage"], "gone.mlpackage"),
    "a name": (["PACKAGE", "--name", "1/2"], "name '1/2' is not like 'My App'"),
    "a bundle": (["PACKAGE", "--bundle-id", "me"], "bundle id 'me' is not like"),
    "no contract": (["MODULE"], "has no preprocessing contract; export the model"),
    "another format": (["x.aimodel"], "x.aimodel"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_impossible_is_one_line_and_leaves_nothing(case, package, ondevice_, tmp_path):
    import mlx.core as mx
    import mlx.nn as nn

    inside = tmp_path / "m.mlpackage"
    known = {"PACKAGE": package, "MODULE": inside}
    words, said = REFUSED[case]
    if "MODULE" in words:
        export_module(nn.Linear(4, 2).eval(), mx.zeros((1, 4)), inside)
    given = [known.get(word, word) for word in words]
    status, out, err = ondevice_("app", *given, "--out", tmp_path / "App")
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert not out
    assert [p for p in tmp_path.iterdir() if p != inside] == []


def test_a_folder_of_something_else_stays(package, ondevice_, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/cat.jpg").write_bytes(b"meow")
    for force in ([], ["--force"]):
        status, _, err = ondevice_("app", package, "--out", tmp_path / "precious", *force)
        assert (status, err.count("\n")) == (2, 1)
    assert (tmp_path / "precious/cat.jpg").read_bytes() == b"meow"


def test_a_project_is_replaced_with_force(package, ondevice_, tmp_path):
    out = tmp_path / "Flowers"
    assert ondevice_("app", package, "--out", out)[0] == 0
    (out / "App/QuickStart.swift").write_text("mine")
    assert ondevice_("app", package, "--out", out)[0] == 2
    assert (out / "App/QuickStart.swift").read_text() == "mine"
    assert ondevice_("app", package, "--out", out, "--force")[0] == 0
    assert (out / "App/QuickStart.swift").read_text() != "mine"


def test_a_name_with_quotes_and_spaces_stays_one_string():
    project = Project("My App", "com.example.app", ("App/Info.plist",), {"../Kit": ("Kit",)})
    assert '"My App.app"' in pbxproj(project)
    with pytest.raises(ConfigError, match="name 'a\"b' is not like"):
        Project('a"b', "com.example.app", ("App/Info.plist",), {})
