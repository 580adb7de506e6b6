"""A small model, its package, and what comparing them says."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module

import pytest

from converters import export, load_package
from converters.verification import baselines
from converters.verification.verify import verify
from ondevice import create_model
from ondevice.signature.samples import sample_images

NAME = "shvit_nano.cifar10"


@pytest.fixture(scope="session")
def nano():
    return create_model(NAME)


@pytest.fixture(scope="session")
def package(nano, tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "nano.mlpackage"
    return load_package(export(nano, path))


@pytest.fixture(scope="session")
def fresh(nano, package):
    with baselines.fresh_packages(nano, package) as packages:
        yield packages


@pytest.fixture
def climbed(fresh, monkeypatch):
    """The model's fresh packages, made once."""
    module = import_module("converters.verification.verify")  # a function has its name
    monkeypatch.setattr(module, "fresh_packages", lambda *_: nullcontext(fresh))


@pytest.fixture(scope="session")
def report(nano, package):
    return verify(nano, package, sample_images(96), baselines=True)


@pytest.fixture(scope="session")
def other():
    """The model with one convolution half as large again."""
    model = create_model(NAME)
    conv = model.stages[1].blocks[0].conv.m.conv
    conv.weight = conv.weight * 1.5
    return model


@pytest.fixture(scope="session")
def failed(other, package):
    return verify(other, package, sample_images(96), baselines=True)
