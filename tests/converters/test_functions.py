"""Several tasks over one base in one package: a function each, the base stored once."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest

from converters import export, export_functions, load_package
from ondevice.cli import run
from ondevice.errors import ConfigError, OutputError
from ondevice.image.preprocess import normalize
from ondevice.tasks.train.start import new_model
from ondevice.weights.folder import save_model
from ondevice.weights.output import folder_bytes

BASE = "shvit_nano.cifar10"
TASKS = {"colours": ("blue", "green", "red"), "moods": ("calm", "wild")}


def task(classes, seed=0):
    """As ``--method adapter`` leaves it: a base that is the same, a head and adapters."""
    model = new_model(BASE, classes, adapter=4, seed=seed)
    mx.random.seed(seed)
    for _, layer in model.named_modules():
        if "adapter" in layer:
            layer.adapter.up.weight = 0.1 * mx.random.normal(layer.adapter.up.weight.shape)
    mx.eval(model.parameters())
    return model


@pytest.fixture(scope="module")
def models():
    return {name: task(classes, seed) for seed, (name, classes) in enumerate(TASKS.items())}


@pytest.mark.parametrize("recipe", ["", "palette4"])
def test_the_base_is_stored_once(models, recipe, tmp_path):
    options = {"target": "iOS18", "recipe": recipe, "outputs": "logits"}
    path = export_functions(models, tmp_path / "both.mlpackage", **options)
    alone = export(models["colours"], tmp_path / "one.mlpackage", **options)
    weights = [next(p.glob("**/weight.bin")).stat().st_size for p in (path, alone)]
    assert weights[1] < weights[0] < 1.12 * weights[1]  # adapters and heads are a few per cent
    assert folder_bytes(path) < 1.7 * folder_bytes(alone)
    package = load_package(path)
    assert sorted(package.functions) == ["colours", "moods"]
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    for name, model in models.items():
        assert package.at(name).labels == TASKS[name]
        one = load_package(export(model, tmp_path / f"{name}.mlpackage", **options))
        got, wanted = (p.predict({"image": image})["logits"] for p in (package.at(name), one))
        np.testing.assert_array_equal(got, wanted)
        if not recipe:
            mlx = np.array(model(normalize(mx.array(image[None]), model.info.preprocess)))
            assert np.abs(got - mlx).max() < 0.02 * np.abs(mlx).max()


def test_what_a_package_says_of_several(models, tmp_path):
    path = export_functions(models, tmp_path / "both.mlpackage", target="iOS18")
    package = load_package(path)
    said = package.metadata
    assert said["license"] == "mit"
    assert json.loads(said["ondevice.functions"]).keys() == models.keys()
    assert package.preprocess == models["colours"].info.preprocess
    assert "shvit_nano" in said["shortDescription"]
    with pytest.raises(OutputError):
        export_functions(models, path, target="iOS18")


def sized(size):
    return new_model(BASE, TASKS["moods"], size=size)


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, model in models.items():
        save_model(model, folder / name)
    return [str(folder / name) for name in models]


def test_the_command_takes_several(folders, models, tmp_path, capsys):
    path = tmp_path / "both.mlpackage"
    assert run(["export", *folders, "--out", str(path), "--target", "iOS18", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["package"] == str(path)
    package = load_package(path)
    assert {name: package.at(name).labels for name in package.functions} == TASKS


OF_SEVERAL = {
    "size": (["--size", "96"], "--size: of one model only; 2 are given"),
    "budget": (["--budget", "1MB"], "--budget: of one model only"),
    "calibrate": (["--calibrate", "photos"], "--calibrate: of one model only"),
    "out": (None, "--out names the package"),
}


@pytest.mark.parametrize("case", OF_SEVERAL)
def test_the_command_refuses_what_is_of_one(folders, case, tmp_path, capsys):
    options, message = OF_SEVERAL[case]
    out = ["--out", str(tmp_path / "x.mlpackage"), *options] if options else []
    assert run(["export", *folders, *out]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_names_functions_that_clash(folders, tmp_path, capsys):
    out = str(tmp_path / "x.mlpackage")
    assert run(["export", folders[0], folders[0], "--out", out]) == 2
    assert "two models would be the function colours" in capsys.readouterr().err


REFUSED = {
    "one": (lambda m: {"colours": m["colours"]}, {}, "1 models prepared in 1 ways"),
    "name": (lambda m: {"my task": m["colours"], "b": m["moods"]}, {}, "as in Swift"),
    "sizes": (lambda m: {"a": m["colours"], "b": sized(64)}, {}, "2 models prepared in 2 ways"),
    "samples": (lambda m: m, {"budget": 10**6}, "budget of several models"),
    "target": (lambda m: m, {"target": "iOS17"}, "need target iOS18"),
    "inside": (
        lambda m: m,
        {"also": "a.mlpackage/b.aimodel"},
        "inside the package .*a.mlpackage",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(models, tmp_path, case):
    chosen, options, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        export_functions(
            chosen(models), tmp_path / "x.mlpackage", **{"target": "iOS18"} | options
        )
    assert not list(tmp_path.iterdir())


def test_recipes_that_differ(models, tmp_path):
    other = task(TASKS["moods"])
    other.info.recipe.update(
        {"rules": [{"pattern": "*", "method": "quantize"}], "trained": True}
    )
    both = {"colours": models["colours"], "moods": other}
    with pytest.raises(
        ConfigError, match="colours, moods were trained for recipes that differ"
    ):
        export_functions(both, tmp_path / "x.mlpackage", target="iOS18")
