"""A package to draw."""

from __future__ import annotations

import pytest

from converters import export, load_package
from ondevice import create_model


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "nano.mlpackage"
    return load_package(export(create_model("shvit_nano.cifar10"), path))
