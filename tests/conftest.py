"""What all tests share. Before any of them: a tuned BLAS only serves MLX if it comes first."""

import os

import pytest
from hypothesis import Phase, settings

import ondevice as ondevice
from ondevice.cli import run
from ondevice.cpu import blas

PHASES = (Phase.explicit, Phase.generate, Phase.shrink)
settings.register_profile(
    "default", max_examples=300, deadline=None, derandomize=True, phases=PHASES
)
settings.register_profile("thorough", max_examples=10_000, deadline=None, phases=PHASES)
settings.load_profile("default")
# Where there is none this is known, and one line too many in what a command says.
os.environ[blas.NO_ADVICE] = "1"


@pytest.fixture
def ondevice_(capsys):
    """A command line of ondevice to its exit status, standard output and error."""

    def call(*args):
        status = run(tuple(map(str, args)))
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory):
    """The files of a tiny FastVLM."""
    from .ondevice.tasks.vlm import tiny

    return tiny.write(tmp_path_factory.mktemp("vlm") / "tiny")


@pytest.fixture(scope="session")
def vlm(vlm_folder):
    """A tiny FastVLM that sees images as four tokens."""
    from ondevice.tasks.vlm import Vision

    return ondevice.load_vlm(vlm_folder, vision=Vision(size=128))
