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
