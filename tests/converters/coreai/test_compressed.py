"""Compressed constants: what we say they stand for is what Apple's runtime unpacks."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from converters.compress.forms import Affine, spread
from converters.compress.methods import compress
from converters.graph.graph import Graph, Node, Value
from ondevice.weights.output import folder_bytes

from ..compress.test_forms import METHODS, weight
from .kit import saved

SHAPES = [(37, 1, 3, 3), (66, 34, 1, 1), (16, 8, 3, 3)]


def program_of(form, folder, dtype="float16"):
    """A program that gives the constant, plus an input of zeros."""
    x = Value("x", form.shape, dtype)
    node = Node("Add", ("x", "w"), (Value("y", form.shape, dtype),))
    graph = Graph((x,), ("y",), {"w": form.dense()}, (node,))
    return saved(graph, Path(folder) / "w.aimodel", forms={"w": form})


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_a_form_is_what_apple_unpacks(name, shape, tmp_path):
    method, options, _ = METHODS[name]
    form = compress(weight(shape), method, options)
    program = program_of(form, tmp_path)
    dense = form.dense().astype(np.float32)
    given = program.predict({"x": np.zeros(shape)})["y"]
    np.testing.assert_array_equal(given, dense)
    np.testing.assert_array_equal(program.array("w").astype(np.float32), dense)
    assert program.weights["w"].shape == shape


def test_a_zero_between_two_codes_is_where_it_was(tmp_path):
    """As MLX's own quantization has it: a shift for each block, of any number."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (8, 64)).astype(np.uint8)
    scale, offset = (
        rng.uniform(a, b, (8, 2)).astype(np.float16) for a, b in ((0.01, 1), (3, 9))
    )
    program = program_of(form := Affine(codes, scale, 4, offset), tmp_path)
    given = program.predict({"x": np.zeros(form.shape)})["y"]
    step = 16 * spread(scale, form.shape).astype(np.float32) / 2**11  # half precision's, of all
    for found in (given, program.array("w").astype(np.float32)):
        assert (np.abs(found - form.dense().astype(np.float32)) <= 2 * step).all()


FORMATS = {
    "int8": "int8 per channel",
    "uint8": "uint8 per channel",
    "palette6": "6-bit palette",
    "grouped": "4-bit palette, 4 tables",
    "int8 table": "4-bit palette, 4 tables (int8 per channel)",
    "int4 block": "int4 per block of 4",
    "prune": "sparse fp16",
    "prune int8": "sparse int8 per channel",
    "prune palette4": "sparse 4-bit palette",
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_said_in_words_and_costs_its_bits(name, tmp_path):
    method, options, _ = METHODS[name]
    form = compress(weight((64, 64, 3, 3)), method, options)
    program = program_of(form, tmp_path)
    assert program.weights["w"].format == FORMATS[name]
    assert program.weights["w"].bytes == pytest.approx(form.stored_bits / 8, rel=0.02)
    assert folder_bytes(program.path) <= 1.02 * form.stored_bits / 8 + 1500


def test_a_linear_layer_reads_a_compressed_weight(tmp_path):
    form = compress(weight((8, 32)), "quantize", {"bits": 4, "block": 32})
    x = mx.random.normal((2, 32))
    node = Node("Linear", ("x", "w.weight"), (Value("y", (2, 8), "float16"),))
    graph = Graph(
        (Value("x", (2, 32), "float16"),), ("y",), {"w.weight": form.dense()}, (node,)
    )
    program = saved(graph, tmp_path / "l.aimodel", forms={"w.weight": form})
    given = program.predict({"x": np.array(x)})["y"]
    wanted = np.array(x, np.float32) @ form.dense().astype(np.float32).T
    assert np.abs(given - wanted).max() < 5e-3 * np.abs(wanted).max()
