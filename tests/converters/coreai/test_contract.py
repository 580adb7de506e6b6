"""What we rely on in coreai-core that is private, or that its betas have changed.

If another version breaks one of these, this says so in one place; it has to pass before
``converters/coreai/required.py`` and the extra in ``pyproject.toml`` name that version.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import coreai.authoring as ca
import numpy as np
import pytest
from coreai.authoring import AIProgram, Value

from converters.coreai import authoring, required, runtime

from ... import ROOT

F32 = authoring.tensor((2, 4), "float32")
RNG = np.random.default_rng(0)


def program(body, path: Path, outputs=None, inputs=None):
    """A function ``main`` of two rows of four numbers, saved and opened again."""
    builder = authoring.new_builder()
    with authoring.building(builder):
        authoring.define("main", inputs or {"x": F32}, outputs or {"y": F32}, body)
    authoring.write_program(builder.module, path)
    return runtime.open_asset(path, (path / "main.mlirb").read_bytes())


def functions(asset):
    """The program has to be kept as long as its operations are looked at."""
    loaded = asset.program
    return loaded, runtime.read_functions(loaded)


def test_the_version_is_the_one_that_the_extra_names():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = f"{required.LIBRARY}=={required.VERSION}"
    assert all(line.startswith(wanted) for line in extras["optional-dependencies"]["coreai"])
    assert version(required.LIBRARY) == required.VERSION


def test_only_two_files_know_what_is_private():
    for path in (ROOT / "converters").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.parent.name == "coreai" and path.name in {"authoring.py", "runtime.py"}:
            assert "coreai._compiler" in text
        else:
            assert "coreai._compiler" not in text, path


def test_a_value_has_a_shape_a_type_and_a_maker(tmp_path):
    def body(x):
        y = ca.relu(x)
        assert isinstance(y, Value)
        assert (tuple(y.type.shape), y.type.dtype.numpy) == ((2, 4), np.float32)
        assert (x.defining_op, y.defining_op.name) == (None, "coreai.relu")
        return [y]

    program(body, tmp_path / "m.aimodel")


def half(*shape):
    return RNG.normal(size=shape).astype(np.float16)


def test_a_convolution_of_halves_is_added_up_in_float32_and_rounded_before_its_bias(tmp_path):
    """What tells Apple's runtime for CPUs from our evaluator of Core ML packages, bit for bit:
    a convolution has no bias in this dialect."""
    x, weight, bias = half(1, 64, 5, 5), half(8, 64, 1, 1), half(1, 8, 1, 1)
    kind, once = authoring.tensor((1, 8, 5, 5), "float16"), np.array([1, 1], np.uint32)

    def body(x):
        y = ca.conv2d(x, authoring.literal(weight), once, once, np.uint32(1))
        return [ca.broadcasting_add(y, bias)]

    given = {"x": authoring.tensor(x.shape, "float16")}
    runner = runtime.Runner(program(body, tmp_path / "m.aimodel", {"y": kind}, given))
    y = runner.call("main", {"x": x})["y"]
    total = np.einsum("bihw,oi->bohw", x.astype("d"), weight[..., 0, 0].astype("d"))
    np.testing.assert_array_equal(y, total.astype(np.float16) + bias)


def test_every_term_and_sum_of_a_product_of_halves_is_rounded(tmp_path):
    """Why a head is a convolution: of 1,024 terms a half of the digits is left."""
    x, y = half(2, 256), half(256, 4)
    kind = authoring.tensor((2, 4), "float16")
    given = {n: authoring.tensor(v.shape, "float16") for n, v in (("x", x), ("y", y))}
    path = tmp_path / "m.aimodel"
    asset = program(lambda x, y: [ca.broadcasting_batch_matmul(x, y)], path, {"z": kind}, given)
    z = runtime.Runner(asset).call("main", {"x": x, "y": y})["z"]
    total = np.float16(0)
    for k in range(x.shape[1]):
        total = total + x[:, k : k + 1] * y[k]
    np.testing.assert_array_equal(z, total)


def test_names_are_read_back(tmp_path):
    def body(x):
        with authoring.steps("main"):
            y = ca.broadcasting_add(ca.exp(x), authoring.constant(np.ones((1, 4), "f"), "w.b"))
            authoring.set_names([y], ["layer.1"], "main")
            parts = ca.split(y, np.array([1, 3], np.uint32), np.int32(1))
            authoring.set_names(parts, ["a", "b"], "main")
            return [ca.concat(np.int32(1), [parts[1], parts[0]])]

    kept, found = functions(program(body, tmp_path / "m.aimodel"))
    names = {op.kind: op.names for op in found["main"].operations if op.kind != "constant"}
    unnamed = dict.fromkeys(["exp", "concat", "output"], ())
    assert names == unnamed | {"broadcasting_add": ("layer.1",), "split": ("a", "b")}
    assert [op.names for op in found["main"].operations if op.types == ("tensor<1x4xf32>",)]
    assert found["main"].arguments == ("x",)
    assert found["main"].results == ("y",)
    assert found["main"].argument_types == ("tensor<2x4xf32>",)
    assert kept is not None


def test_the_places_of_another_converter_are_no_names(tmp_path):
    """They are files and lines of a program in Python."""
    module = ca.Module.create()
    with module:
        authoring.define("main", {"x": F32}, {"y": F32}, lambda x: [ca.relu(ca.exp(x))])
    authoring.write_program(module, tmp_path / "m.aimodel")
    code = (tmp_path / "m.aimodel" / "main.mlirb").read_bytes()
    kept, found = functions(runtime.open_asset(tmp_path / "m.aimodel", code))
    assert [op.names for op in found["main"].operations] == [(), (), ()]
    assert kept is not None


@pytest.mark.parametrize(
    ("bits", "signed"), [(1, False), (2, False), (3, False), (4, False), (6, False), (4, True)]
)
def test_integers_of_few_bits_are_packed_and_read_back(bits, signed, tmp_path):
    codes = RNG.integers(0, 1 << bits, (16, 33)) - ((1 << bits - 1) if signed else 0)
    one = np.ones((1, 1), np.float32)
    table = np.arange(1 << bits, dtype=np.float32).reshape(1, 1, -1, 1)

    def body(x):
        held = authoring.packed(codes, bits, signed)
        if bits in (2, 4):
            none = authoring.zeros((1, 1), held), authoring.zeros((1, 1), x)
            dense = ca.blockwise_shift_scale(held, authoring.constant(one, "s"), *none)
        else:
            dense = ca.lut_to_dense(held, table, np.int16(0))
        return [ca.broadcasting_add(x, dense)]

    kind = authoring.tensor(codes.shape, "float32")
    path = tmp_path / "m.aimodel"
    asset = program(body, path, {"y": kind}, {"x": kind})
    assert (path / "main.mlirb").stat().st_size < codes.size * bits / 8 + 1500
    zero = np.zeros(codes.shape, np.float32)
    assert np.array_equal(runtime.Runner(asset).call("main", {"x": zero})["y"], codes)
    kept, found = functions(asset)
    dtype = f"{'s' if signed else 'u'}i{bits}"
    [op] = [o for o in found["main"].operations if o.types == (f"tensor<16x33x{dtype}>",)]
    assert np.array_equal(runtime.constant_of(op, dtype, codes.shape), codes)
    assert kept is not None


@pytest.mark.parametrize("kind", ["float32", "float16", "int8", "int32", "bool"])
def test_a_constant_is_read_back(kind, tmp_path):
    array = (RNG.normal(size=(40, 20)) * 5).astype(kind)

    outputs = {"y": F32, "w": authoring.tensor(array.shape, kind)}
    path = tmp_path / "m.aimodel"
    asset = program(lambda x: [ca.relu(x), authoring.constant(array, "w")], path, outputs)
    kept, found = functions(asset)
    large = [op for op in found["main"].operations if "40x20" in "".join(op.types)]
    dtype = large[0].types[0].rstrip(">").split("x")[-1]
    known = runtime.constant_of(large[0], dtype, (40, 20))
    assert np.array_equal(known.astype(kind), array)
    assert kept is not None


def test_a_composite_is_declared_called_and_run(tmp_path):
    def body(x):
        twice = [
            authoring.composite("relu6", {"input": x}, (2, 4), lambda x: [ca.relu(x)], top=6.0)
            for _ in range(2)
        ]
        return [ca.broadcasting_add(*twice)]

    asset = program(body, tmp_path / "m.aimodel")
    kept, found = functions(asset)
    assert set(found) == {"relu6_0", "main"}  # two equal calls of one function
    assert (found["relu6_0"].composite, found["relu6_0"].private) == ("relu6", True)
    calls = [op.callee for op in found["main"].operations if op.kind == "invoke"]
    assert set(calls) == {"relu6_0"}
    x = np.array([[-1, 2, 3, -4]] * 2, np.float32)
    given = runtime.Runner(asset).call("main", {"x": x})["y"]
    assert np.array_equal(given, 2 * np.maximum(x, 0))
    assert kept is not None


def test_a_value_on_the_way_can_be_seen(tmp_path):
    def body(x):
        with authoring.steps("main"):
            y = ca.exp(x)
            authoring.set_names([y], ["between"], "main")
            return [ca.relu(y)]

    asset = program(body, tmp_path / "m.aimodel")
    runner, order = runtime.exposed(asset, "main")
    x = RNG.normal(size=(2, 4)).astype(np.float32)
    values = runner.call("main", {"x": x})
    assert order == ["between"]
    assert np.allclose(values["between"], np.exp(x), rtol=1e-6)
    assert set(values) == {"y", "between"}


def test_an_image_is_declared_and_made_a_tensor(tmp_path):
    def body(image):
        levels = ca.image_to_tensor(image)
        assert (tuple(levels.type.shape), levels.type.dtype.numpy) == ((4, 6, 3), np.uint8)
        return [ca.cast(levels, np.float32)]

    kind = authoring.tensor((4, 6, 3), "float32")
    asset = program(body, tmp_path / "m.aimodel", {"y": kind}, {"image": authoring.image(4, 6)})
    kept, found = functions(asset)
    [text] = found["main"].argument_types
    assert "k24RGB" in text
    assert kept is not None


def test_what_is_saved_can_be_saved_again(tmp_path):
    asset = program(lambda x: [ca.relu(x)], tmp_path / "m.aimodel")
    AIProgram(asset.program._module).save_asset(tmp_path / "again.aimodel")
    codes = [(tmp_path / n / "main.mlirb").read_bytes() for n in ("m.aimodel", "again.aimodel")]
    assert codes[0] == codes[1]


def test_a_program_that_is_wrong_is_one_line():
    builder = authoring.new_builder()
    with (
        pytest.raises(Exception, match="cannot export: ") as caught,
        authoring.building(builder),
    ):
        authoring.define(
            "main",
            {"x": F32},
            {"y": authoring.tensor((4, 6), "float32")},
            lambda x: [ca.pad(x, np.ones(4, np.uint32), np.zeros(1, "f"), "constant")],
        )
    assert "\n" not in str(caught.value)
    assert "debuginfo" not in str(caught.value)


RUN = """
import sys; sys.path.insert(0, {root!r})
from pathlib import Path
import numpy as np
from converters.coreai import runtime
path = Path({path!r})
asset = runtime.open_asset(path, (path / "main.mlirb").read_bytes())
x = np.zeros((2, 4), np.float32)
runtime.Runner(asset).call("main", {{"x": x}})
runtime.exposed(asset, "main")[0].call("main", {{"x": x}})
"""


def test_a_process_that_ran_something_ends_well_and_says_nothing(tmp_path):
    """coreai-core's threads let go of our objects a moment after the last result."""
    path = tmp_path / "m.aimodel"
    program(lambda x: [ca.relu(x)], path)
    code = RUN.format(root=str(ROOT), path=str(path))
    for _ in range(3):
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_call_works_where_an_event_loop_runs_already(tmp_path):
    """As in a notebook."""
    import asyncio

    asset = program(lambda x: [ca.relu(x)], tmp_path / "m.aimodel")

    async def cell():
        return runtime.Runner(asset).call("main", {"x": -np.ones((2, 4), np.float32)})

    assert not asyncio.run(cell())["y"].any()
