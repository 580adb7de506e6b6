"""A package of several functions is verified whole, and what it declares is what it holds."""

from __future__ import annotations

import pytest

from converters import export, load_package, verify
from converters.coreml.loaded import Package
from ondevice import load


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    model = load("shvit_nano.flowers")
    path = tmp_path_factory.mktemp("several") / "x.mlpackage"
    return model, export(model, path, size=[64, 96], target="iOS18")


def test_every_function_is_verified_at_its_own_size(several):
    model, path = several
    report = verify(model, path, model.signature.samples(2)).require()
    assert [step.name for step in report.steps] == ["as saved, size_64", "as saved, size_96"]
    package = load_package(path)
    assert [package.at(f).preprocess.size for f in package.functions] == [64, 96]


def test_a_fault_in_the_second_function_is_found(several, monkeypatch):
    model, path = several
    predict = Package.predict

    def broken(self, inputs, **options):
        got = predict(self, inputs, **options)
        return got if self.default_function == "size_64" else {k: v * 0 for k, v in got.items()}

    monkeypatch.setattr(Package, "predict", broken)
    report = verify(model, path, model.signature.samples(2))
    assert [step.passed for step in report.steps] == [True, False]
    assert not report.passed


@pytest.fixture
def spec(tmp_path):
    """A classifier with two more outputs, and how to change what it says of itself."""
    model = load("shvit_nano.cifar10")
    path = export(model, tmp_path / "x.mlpackage", outputs=["logits", "embedding"])
    package = load_package(path)
    return model, package, package.saved.spec.description


def test_an_output_that_is_not_declared_is_found(spec):
    model, package, description = spec
    (lost,) = (i for i, f in enumerate(description.output) if f.name == "embedding")
    del description.output[lost]
    report = verify(model, package, model.signature.samples(1))
    assert report.problems == ("the program computes 4 outputs; the package declares 3",)


def test_a_predicted_class_that_is_no_output_is_found(spec):
    model, package, description = spec
    description.predictedFeatureName = "logits"
    report = verify(model, package, model.signature.samples(1))
    assert len(report.problems) == 1
    assert "'logits' is said to be the predicted class" in report.problems[0]


def test_a_compressed_package_of_several_functions_says_so(tmp_path):
    model = load("shvit_nano.flowers")
    options = {"size": [64, 96], "target": "iOS18", "recipe": "int8"}
    package = load_package(export(model, tmp_path / "x.mlpackage", **options))
    assert package.is_compressed
    assert {"recipe", "float16"} <= {key.removeprefix("ondevice.") for key in package.metadata}
    verify(model, package, model.signature.samples(4)).require()
