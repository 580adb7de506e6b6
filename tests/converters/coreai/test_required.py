"""Without the library, with another version, on another machine: one line that says so."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from converters.coreai import required
from ondevice.errors import ConfigError

from ... import ROOT


def missing(name):
    raise PackageNotFoundError(name)


CASES = {
    "missing": (("Linux", "x86_64"), missing, r"pip install 'ondevice\[coreai\]'"),
    "another": (("Linux", "x86_64"), lambda name: "1.0.0b2", "1.0.0b3, 1.0.0b2 is installed"),
    "an ARM": (("Linux", "aarch64"), missing, "only; this is Linux aarch64"),
    "an Intel Mac": (("Darwin", "x86_64"), missing, "only; this is Darwin x86_64"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_says_what_to_install(case, monkeypatch):
    (system, machine), version, said = CASES[case]
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(required, "version", version)
    with pytest.raises(ConfigError, match=said) as caught:
        required.require()
    assert "\n" not in str(caught.value)


def test_it_is_there_where_these_tests_run():
    required.require()


def test_importing_converters_does_not_import_it():
    code = "import sys, converters; print('coreai' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "False\n"


WITHOUT = """
import importlib.metadata, platform, sys
real, said = importlib.metadata.version, {version!r}
def version(name):
    if name != "coreai-core":
        return real(name)
    if not said:
        raise importlib.metadata.PackageNotFoundError(name)
    return said
importlib.metadata.version = version
platform.machine = lambda: {machine!r}
from ondevice.cli import run
sys.exit(run(sys.argv[1:]))
"""
MACHINES = {
    "missing": ("", "x86_64", "pip install 'ondevice[coreai]'"),
    "another": ("1.0.0b4", "x86_64", "1.0.0b4 is installed"),
    "an ARM": ("", "aarch64", "x86-64 Linux and Macs with Apple silicon only"),
}


@pytest.mark.skipif(sys.platform == "darwin", reason="names Linux machines")
@pytest.mark.parametrize("case", MACHINES)
def test_commands_say_what_to_install(case, tmp_path):
    version, machine, said = MACHINES[case]
    code = WITHOUT.format(version=version, machine=machine)
    path = tmp_path / "m.aimodel"
    for command in (["export", "shvit_nano.cifar10", "--out"], ["inspect"]):
        line = [sys.executable, "-c", code, *command, str(path)]
        ran = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 2
        assert said in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


OTHER = """
import sys
import mlx.core as mx, mlx.nn as nn
from converters import export_module, load_package, verify
net = nn.ReLU().eval()
path = export_module(net, mx.zeros((2, 3)), sys.argv[1])
verify(net, path, [mx.ones((2, 3))], baselines=True)
load_package(path).findings()
print([name for name in sys.modules if name.partition(".")[0] == "coreai"])
"""


def test_a_core_ml_package_needs_none_of_it(tmp_path):
    line = [sys.executable, "-c", OTHER, str(tmp_path / "m.mlpackage")]
    ran = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "[]\n", ran.stderr
