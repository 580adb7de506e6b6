"""Whatever an option is given, the answer is one line that says what it may be."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export, export_module, load_package, verify
from ondevice import create_model
from ondevice.errors import ConfigError, ImageError, PackageError

X = mx.ones((2, 4))


@pytest.fixture(scope="module")
def net():
    return nn.Linear(4, 3).eval()


@pytest.fixture(scope="module")
def package(net, tmp_path_factory):
    return export_module(net, X, tmp_path_factory.mktemp("options") / "x.mlpackage")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("recipe", 3, "recipe is a preset's name, a file or a CompressionRecipe; given 3"),
        ("recipe", [1], "recipe is a preset's name"),
        ("calibration", 5, "calibration is a list of samples; given 5"),
        ("calibration", "photos/", "calibration is a list of samples; given 'photos/'"),
        ("calibration", None, "calibration is a list of samples; given None"),
        ("budget", "2 MB", "budget is a number of bytes; given '2 MB'"),
        ("budget", -3, "budget is a number of bytes; given -3"),
        ("budget", True, "budget is a number of bytes; given True"),
        ("min_agreement", "x", "min_agreement is a share of 1; given 'x'"),
        ("min_agreement", 1.5, "min_agreement is a share of 1; given 1.5"),
        ("min_agreement", float("nan"), "min_agreement is a share of 1; given nan"),
        ("account", 3, "account is a function; given 3"),
        ("timed", 3, "timed is a function; given 3"),
        ("front", "yes", "front is True or False; given 'yes'"),
        ("force", "no", "force is True or False; given 'no'"),
        ("also", 3, "also is a path, as text or a Path, or a list of them; given 3"),
        ("also", [3], r"also is a path, as text or a Path, or a list of them; given \[3\]"),
        ("attention", [], r"no attention \[\]; there are"),
    ],
)
def test_an_option_of_export_that_is_none(option, value, said, net, tmp_path):
    with pytest.raises(ConfigError, match=f"^{said}"):
        export_module(net, X, tmp_path / "x.mlpackage", **{option: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [None, 3, b"x.mlpackage"])
def test_a_path_that_is_none(path, net):
    with pytest.raises(ConfigError, match=r"^path is a path, as text or a Path; given"):
        export_module(net, X, path)
    with pytest.raises(PackageError, match=r"^a package is opened by a path"):
        load_package(path)


def test_all_that_is_wrong_is_listed_at_once(net, tmp_path):
    with pytest.raises(ConfigError, match=r"recipe is .*; given 3; budget is .*; given 'x'"):
        export_module(net, X, tmp_path / "x.mlpackage", recipe=3, budget="x")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("model", 5, "model is an mlx.nn.Module; given 5"),
        ("package", 5, "package is a path, as text or a Path, or an opened package; given 5"),
        ("images", 5, "images is a list of samples; given 5"),
        ("images", None, "images is a list of samples; given None"),
        ("run_on", "gpu", "run_on is one of reference, device, auto; given 'gpu'"),
        ("gates", {"psnr_db": "x"}, "gates is a dict of metrics and their limits; given"),
        ("gates", [("psnr_db", 50)], "gates is a dict of metrics and their limits; given"),
        ("baselines", "all", "baselines is True or False; given 'all'"),
        ("against", 5, "against is another package; given 5"),
        ("on_error", 5, "on_error is a function; given 5"),
    ],
)
def test_an_option_of_verify_that_is_none(option, value, said, net, package):
    given = {"model": net, "package": package, "images": [X], option: value}
    with pytest.raises(ConfigError, match=f"^{said}"):
        verify(**given)


def test_inputs_that_are_no_dict(package):
    with pytest.raises(PackageError, match=r"takes a dict of input; given int$"):
        load_package(package).predict(5)


def test_the_rows_of_one_photo_are_no_photos(tmp_path):
    model, photo = create_model("shvit_nano.cifar10"), np.zeros((96, 96, 3), np.uint8)
    said = r"is a list of samples; given an array of uint8, \(96, 96, 3\)$"
    with pytest.raises(ConfigError, match=f"^calibration {said}"):
        export(model, tmp_path / "x.mlpackage", calibration=photo)
    path = export(model, tmp_path / "x.mlpackage")
    with pytest.raises(ConfigError, match=f"^images {said}"):
        verify(model, path, photo)
    assert verify(model, path, photo[None]).images == 1


def test_floats_are_no_pixels_even_of_the_right_size(tmp_path):
    model, photo = create_model("shvit_nano.cifar10"), np.zeros((96, 96, 3), np.float32)
    with pytest.raises(ImageError, match="float32 array of shape"):
        export(model, tmp_path / "x.mlpackage", calibration=[photo])


@pytest.mark.parametrize("place", ["gpu", "Device", None, 3, []])
def test_a_package_runs_nowhere_but_where_it_can(place, package):
    with pytest.raises(PackageError, match="run_on is one of reference, device, auto; given"):
        load_package(package).predict({"input": np.zeros((2, 4))}, run_on=place)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model, net = create_model("shvit_nano.cifar10"), nn.Linear(4, 3).eval()
    model.head.linear.bias = mx.full((10,), float("nan"))
    net.weight = net.weight * float("nan")
    with pytest.raises(ConfigError, match=r"^shvit_nano.cifar10 has NaN in head\.[a-z.]+"):
        export(model, tmp_path / "x.mlpackage")
    with pytest.raises(ConfigError, match=r"^Linear has NaN in weight: train it"):
        export_module(net, X, tmp_path / "x.mlpackage")
    assert not list(tmp_path.iterdir())
