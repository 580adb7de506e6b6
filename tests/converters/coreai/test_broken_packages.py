"""A broken, foreign or hostile ``.aimodel`` is one line, and never the end of the process."""

from __future__ import annotations

import hashlib
import json
import shutil

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export_module, load_package
from converters.coreai import authoring, runtime
from ondevice.cli import run
from ondevice.errors import PackageError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "m.aimodel"
    return export_module(nn.ReLU().eval(), mx.zeros((2, 3)), path)


@pytest.fixture
def package(sound, tmp_path):
    """A copy, to be broken."""
    return shutil.copytree(sound, tmp_path / "m.aimodel")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def link_outside(path):
    """A link to a file of the reader's own."""
    secret = path.parent / "secret.json"
    secret.write_text('{"creatorDefinedMetadata": {"stolen": "secret"}}')
    (path / "metadata.json").unlink()
    (path / "metadata.json").symlink_to(secret)


def say(path, **said):
    old = json.loads((path / "metadata.json").read_text())
    (path / "metadata.json").write_text(json.dumps(old | said))


BROKEN = {
    "no folder": (shutil.rmtree, "no such package"),
    "a file": (lambda p: (shutil.rmtree(p), p.write_text("x")), "has no main.mlirb"),
    "empty": (lambda p: (shutil.rmtree(p), p.mkdir()), "has no main.mlirb"),
    "a byte flipped": (lambda p: flip(p / "main.mlirb"), "main.mlirb is damaged"),
    "cut": (lambda p: cut(p / "main.mlirb"), "main.mlirb is damaged"),
    "no program": (lambda p: (p / "main.mlirb").unlink(), "has no main.mlirb"),
    "no hash": (lambda p: (p / "main.hash").unlink(), "has no main.hash"),
    "no JSON": (lambda p: (p / "metadata.json").write_text("{"), "cannot read it"),
    "no text": (lambda p: (p / "metadata.json").write_bytes(b"\xff"), "cannot read it"),
    "a list": (lambda p: (p / "metadata.json").write_text("[]"), "is not a table"),
    "deep": (lambda p: (p / "metadata.json").write_text("[" * 99999), "cannot read it"),
    "custom list": (lambda p: say(p, creatorDefinedMetadata=[1]), "is not a table"),
    "a link": (link_outside, "metadata.json is a link"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_one_line(case, package, capsys):
    breaks, said = BROKEN[case]
    breaks(package)
    with pytest.raises(PackageError, match=said) as caught:
        load_package(package)
    assert "\n" not in str(caught.value)
    assert run(["inspect", str(package)]) == 2
    assert said in capsys.readouterr().err


FOREIGN = {"text": lambda code: b"no MLIR", "cut": lambda code: code[: len(code) // 2]}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_program_that_is_none_is_one_line(case, package):
    """coreai-core would end the process."""
    code = FOREIGN[case]((package / "main.mlirb").read_bytes())
    (package / "main.mlirb").write_bytes(code)
    (package / "main.hash").write_bytes(hashlib.sha256(code).digest())
    with pytest.raises(PackageError, match="cannot read it") as caught:
        load_package(package)
    assert "\n" not in str(caught.value)


# Bits of the program of ``sound`` that, turned over, end the process: in reading, in compiling.
CRASHES = {"read": (1498, "cannot read it"), "compile": (1274, "cannot run it")}


@pytest.mark.parametrize("stage", CRASHES)
def test_a_program_that_crashes_coreai_core_is_one_line(stage, package):
    """It is tried in another process first; this one would not live to tell."""
    bit, said = CRASHES[stage]
    code = bytearray((package / "main.mlirb").read_bytes())
    code[bit // 8] ^= 1 << bit % 8
    (package / "main.mlirb").write_bytes(code)
    (package / "main.hash").write_bytes(hashlib.sha256(code).digest())
    with pytest.raises(PackageError, match=f"{said}: coreai-core crashes") as caught:
        load_package(package).predict({"input": np.zeros((2, 3))})
    assert "\n" not in str(caught.value)


def test_a_program_that_was_tried_is_not_tried_again(package, monkeypatch):
    """Nor is one that this process has written."""
    tried = []
    load_package(package)
    real = runtime.subprocess.run

    def counted(*args, **options):
        tried.append(args)
        return real(*args, **options)

    monkeypatch.setattr(runtime.subprocess, "run", counted)
    given = {"input": np.full((2, 3), 0.5)}
    load_package(package).predict(given)
    assert not tried
    monkeypatch.setattr(authoring, "_OWN", set())  # as another process begins
    for _ in range(2):
        assert (load_package(package).predict(given)["output"] == 0.5).all()
    assert len(tried) == 2  # read, compiled
