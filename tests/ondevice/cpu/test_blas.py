import logging
import subprocess
import sys

import pytest

from ondevice.cpu import blas

RECORD_LOADS = """
import ctypes, sys
load, seen = ctypes.CDLL, []
def record(name, *args, **kwargs):
    seen.append("mlx.core" in sys.modules)
    return load(name, *args, **kwargs)
ctypes.CDLL = record
import ondevice
assert seen and not any(seen), seen
assert "mlx.core" in sys.modules
"""


@pytest.fixture
def warnings(caplog, monkeypatch):
    """What ``advise`` says on a Linux machine with the given state."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv(blas.NO_ADVICE)
    blas.advise.cache_clear()
    yield lambda: caplog.messages
    blas.advise.cache_clear()


def state(monkeypatch, *, library, mlx_came_first):
    monkeypatch.setattr(blas, "BLAS", library)
    monkeypatch.setattr(blas, "MLX_CAME_FIRST", mlx_came_first)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")
def test_blas_is_looked_for_before_mlx_is_imported():
    subprocess.run([sys.executable, "-c", RECORD_LOADS], check=True)


def test_a_missing_blas_is_said_once_with_the_remedy(warnings, monkeypatch):
    state(monkeypatch, library="", mlx_came_first=False)
    blas.advise()
    blas.advise()
    assert len(warnings()) == 1
    assert "apt install libopenblas0-pthread" in warnings()[0]


def test_a_blas_that_came_too_late_is_said(warnings, monkeypatch):
    state(monkeypatch, library="libopenblas.so.0", mlx_came_first=True)
    blas.advise()
    assert "import ondevice first" in warnings()[0]


@pytest.mark.parametrize(
    ("library", "mlx_came_first"), [("libopenblas.so.0", False), ("preloaded", True)]
)
def test_nothing_is_said_when_all_is_well(warnings, monkeypatch, library, mlx_came_first):
    state(monkeypatch, library=library, mlx_came_first=mlx_came_first)
    blas.advise()
    assert warnings() == []


def test_nothing_is_said_on_a_mac(warnings, monkeypatch):
    state(monkeypatch, library="", mlx_came_first=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    blas.advise()
    assert warnings() == []


def test_importing_says_nothing():
    done = subprocess.run([sys.executable, "-c", "import ondevice"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_logger_is_called_ondevice(warnings, monkeypatch, caplog):
    state(monkeypatch, library="", mlx_came_first=False)
    blas.advise()
    assert caplog.records[0].name == "ondevice"
    assert caplog.records[0].levelno == logging.WARNING


def test_who_knows_need_not_be_told(warnings, monkeypatch):
    state(monkeypatch, library="", mlx_came_first=False)
    monkeypatch.setenv(blas.NO_ADVICE, "1")
    blas.advise()
    assert not warnings()
