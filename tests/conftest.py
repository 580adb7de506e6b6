"""What all tests share. Before any of them: a tuned BLAS only serves MLX if it comes first."""

import pytest

import ondevice as ondevice
from ondevice.cli import run


@pytest.fixture
def ondevice_(capsys):
    """A command line of ondevice to its exit status, standard output and error."""

    def call(*args):
        status = run(tuple(map(str, args)))
        return status, *capsys.readouterr()

    return call
