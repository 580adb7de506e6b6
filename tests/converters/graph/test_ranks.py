"""What has more than five axes is computed in five or fewer, with the same numbers."""

from __future__ import annotations

from itertools import permutations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters.graph.evaluate import evaluate
from converters.graph.graph import Graph
from converters.graph.passes import PASSES, run_passes
from converters.graph.passes.canonical import merge_moves
from converters.graph.passes.dead_code import remove_dead_code
from converters.graph.passes.orders import MAX_RANK
from converters.graph.passes.permutations import steps
from converters.graph.passes.ranks import fit_rank
from converters.graph.record import trace_function
from converters.graph.trace import trace
from ondevice.errors import UnsupportedOpError

RNG = np.random.default_rng(0)
WIDE = mx.array(RNG.normal(size=(2, 1, 3, 1, 2, 1, 4)).astype(np.float32))
X = mx.array(RNG.normal(size=(4, 6, 16)).astype(np.float32))
Y = mx.array(RNG.normal(size=(48,)).astype(np.float32))
GAMMA, BETA = mx.array(np.array(Y[:8])), mx.array(np.array(Y[8:16]))
BEFORE = PASSES[: PASSES.index(fit_rank)]


def six(x: mx.array) -> mx.array:
    return x.reshape(2, 2, 3, 2, 2, 8)


def windows(x, y):
    x = x.reshape(2, 2, 3, 2, 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(24, 4, 4)
    return x.reshape(2, 3, 4, 2, 2, 4).transpose(0, 3, 1, 4, 2, 5).reshape(4, 6, 16)


SPELLINGS = {
    "windows there and back": windows,
    "seven axes in any order": lambda x, y: (
        x.reshape(2, 2, 2, 3, 2, 2, 4).transpose(6, 3, 0, 5, 2, 4, 1).reshape(8, -1)
    ),
    "arithmetic": lambda x, y: (mx.exp(six(x)) + six(x) * 2).reshape(6, -1),
    "a parameter of seven axes": lambda x, y: (x.reshape(2, 2, 3, 2, 2, 2, 4) * WIDE).reshape(
        6, -1
    ),
    "operands repeated on every second axis": lambda x, y: (
        x.reshape(2, 2, 3, 2, 2, 2, 4) + y[:24].reshape(2, 1, 3, 1, 2, 1, 2)[..., :1]
    ).reshape(6, -1),
    "a choice": lambda x, y: mx.where(six(x) > 0, six(x), 0.0).reshape(6, -1),
    "a broadcast": lambda x, y: mx.broadcast_to(
        y[:24].reshape(2, 1, 3, 1, 2, 1, 2), (2, 3, 3, 2, 2, 5, 2)
    ).reshape(6, -1),
    "a sum over axes that lie apart": lambda x, y: (
        x.reshape(2, 2, 3, 2, 2, 2, 4).sum((1, 3, 5)).reshape(6, -1)
    ),
    "a maximum that keeps its axes": lambda x, y: (
        x.reshape(2, 2, 3, 2, 2, 2, 4).max((0, 2, 4, 6), keepdims=True).reshape(2, -1)
    ),
    "a softmax": lambda x, y: mx.softmax(six(x), axis=-1).reshape(6, -1),
    "products of stacks": lambda x, y: (six(x) @ y.reshape(2, 1, 3, 1, 8, 1)).reshape(6, -1),
    "a product with a matrix": lambda x, y: (six(x) @ y[:32].reshape(8, 4)).reshape(6, -1),
    "a layer norm": lambda x, y: mx.fast.layer_norm(six(x), GAMMA, BETA, 1e-5).reshape(6, -1),
    "gelu": lambda x, y: nn.gelu(six(x)).reshape(6, -1),
    "einsum": lambda x, y: mx.einsum(
        "abhwkc,hkc->abhwk", x.reshape(2, 1, 2, 4, 3, 8), y.reshape(2, 3, 8)
    ).reshape(6, -1),
    "a concatenation": lambda x, y: mx.concatenate([six(x), six(x)], axis=2).reshape(6, -1),
    "parts": lambda x, y: sum(a.reshape(6, -1) for a in mx.split(six(x), 2, axis=3)),
    "a slice of three axes": lambda x, y: six(x)[:, 1:, :, ::-1, :, 2:7:2].reshape(6, -1),
    "padding": lambda x, y: mx.pad(
        six(x), [(0, 0), (1, 0), (0, 0), (0, 2), (0, 0), (1, 1)]
    ).reshape(6, -1),
    "argmax": lambda x, y: mx.argmax(six(x), axis=2).reshape(8, -1),
    "sorted along an axis": lambda x, y: mx.take_along_axis(
        six(x), mx.argsort(six(x), axis=2), axis=2
    ).reshape(6, -1),
    "running sums": lambda x, y: mx.cumsum(six(x), axis=1).reshape(6, -1),
}


def narrowed(graph: Graph) -> Graph:
    return run_passes(fit_rank(graph).check(), [merge_moves, remove_dead_code])


@pytest.mark.parametrize("name", SPELLINGS)
def test_what_has_many_axes_is_computed_in_five(name):
    graph = run_passes(trace_function(SPELLINGS[name], X, Y), BEFORE)
    assert max(len(v.shape) for v in graph.values.values()) > MAX_RANK
    narrow = narrowed(graph)
    assert max(len(v.shape) for v in narrow.values.values()) <= MAX_RANK
    wanted, got = evaluate(graph, X, Y), evaluate(narrow, X, Y)
    for before, after in zip(graph.outputs, narrow.outputs, strict=True):
        assert wanted[before].shape == got[after].shape
        assert mx.allclose(wanted[before], got[after], rtol=0, atol=1e-5)


def test_a_window_partition_is_one_transpose():
    graph = trace_function(lambda x: six(x).transpose(0, 1, 3, 2, 4, 5).reshape(8, -1), X)
    narrow = narrowed(run_passes(graph, BEFORE))
    assert [n.op for n in narrow.nodes] == ["Reshape", "Transpose", "Reshape"]


def test_six_axes_need_at_most_two_transposes():
    found = {order: steps(order) for order in permutations(range(6))}
    assert max(map(len, found.values())) == 2
    for order, moves in found.items():
        lying = list(range(6))
        for sizes, moved in moves:
            assert len(sizes) <= MAX_RANK
            ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
            parts = [lying[e - n : e] for n, e in zip(sizes, ends, strict=True)]
            lying = [axis for i in moved for axis in parts[i]]
        assert tuple(lying) == order


class Weighed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = WIDE

    def __call__(self, x):
        return (x.reshape(2, 2, 3, 2, 2, 2, 4) * self.w).sum()


def test_a_parameter_of_many_axes_keeps_its_name():
    graph = run_passes(trace(Weighed().eval(), X), BEFORE)
    assert narrowed(graph).constants["w"].ndim <= MAX_RANK


def test_an_output_of_six_axes_is_refused_in_one_line():
    with pytest.raises(UnsupportedOpError, match=r"at most 5 axes .* reshape it") as error:
        run_passes(trace_function(lambda x: six(x) + 1, X))
    assert "\n" not in str(error.value)
