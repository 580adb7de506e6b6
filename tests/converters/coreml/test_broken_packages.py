"""Packages whose parts contradict each other: one line each, from every command."""

from __future__ import annotations

import json
import shutil

import pytest
from coremltools.proto import Model_pb2

from converters import export
from ondevice import create_model
from ondevice.cli import run

MODEL = "Data/com.apple.CoreML/model.mlmodel"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return export(
        create_model("shvit_nano.cifar10"), tmp_path_factory.mktemp("whole") / "n.mlpackage"
    )


def block(spec):
    (found,) = spec.mlProgram.functions["main"].block_specializations.values()
    return found


def no_outputs(spec):
    for output in list(spec.description.output):
        if output.type.WhichOneof("Type") == "multiArrayType":
            spec.description.output.remove(output)


def no_inputs(spec):
    del spec.description.input[:]


def another_picture(spec):
    spec.description.input[0].type.imageType.width = 7


def unknown_type(spec):
    weight = next(op for op in block(spec).operations if op.type == "const")
    weight.attributes["val"].type.tensorType.dataType = 99


def no_block(spec):
    spec.mlProgram.functions["main"].block_specializations.clear()


BREAKAGES = {
    no_outputs: ("", "gives no arrays to compare"),
    no_inputs: ("", "takes nothing; shvit_nano.cifar10 takes image: float32 [1, 96, 96, 3]"),
    another_picture: ("", "takes an image of 96 x 7 pixels; its preprocessing makes 96"),
    unknown_type: ("", "coremltools cannot read its program: 99"),
    no_block: ("has no block", "Missing block"),
}


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda f: f.__name__)
def test_a_broken_package_is_one_line(package, tmp_path, capsys, breakage):
    path = tmp_path / "broken.mlpackage"
    shutil.copytree(package, path)
    spec = Model_pb2.Model.FromString((path / MODEL).read_bytes())
    breakage(spec)
    (path / MODEL).write_bytes(spec.SerializeToString())
    for command, message in zip(("inspect", "verify"), BREAKAGES[breakage], strict=True):
        status = run([command, str(path), "--json"])
        out, err = capsys.readouterr()
        if not message:  # what is there can be shown
            assert status == 0
            assert json.loads(out)
            continue
        assert (status, err.count("\n")) == (2, 1)
        assert str(path) in err
        assert message in err
