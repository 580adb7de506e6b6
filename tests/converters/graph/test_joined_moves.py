"""Rows of reshapes and transposes become as few transposes as they can be."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export_module, load_package
from converters.graph.evaluate import evaluate
from converters.graph.graph import Graph, Node, Value
from converters.graph.passes.joined_moves import join_moves
from converters.graph.passes.permutations import blocks, steps


def row_of(shape, *moves, also=()):
    """A graph of moves, each to a shape or by an order of axes; ``also`` are outputs, too."""
    nodes, before = [], Value("%x", shape)
    for i, (op, args) in enumerate(moves):
        after = args if op == "Reshape" else tuple(before.shape[a] for a in args)
        nodes.append(Node(op, (before.name,), (Value(f"%{i}", after),), (args,)))
        before = nodes[-1].output
    inputs = (Value("%x", shape),)
    return Graph(inputs, (before.name, *also), constants={}, nodes=tuple(nodes)).check()


def transposes(graph):
    return sum(node.op == "Transpose" for node in graph.nodes)


def assert_same(before, after):
    x = mx.arange(math.prod(before.inputs[0].shape)).reshape(before.inputs[0].shape)
    pairs = zip(before.outputs, after.outputs, strict=True)
    found, wanted = evaluate(after.check(), x), evaluate(before, x)
    assert all(mx.array_equal(found[b], wanted[a]) for a, b in pairs)


PARTITION = (
    ("Transpose", (0, 2, 3, 1)),
    ("Reshape", (4, 2, 3, 2 * 5)),
    ("Transpose", (0, 2, 1, 3)),
    ("Reshape", (4 * 3, 2 * 2, 5)),
    ("Transpose", (0, 2, 1)),
    ("Reshape", (4 * 3, 5, 1, 2 * 2)),
)


def test_a_partition_into_windows_is_one_transpose():
    graph = row_of((1, 5, 8, 6), *PARTITION)
    joined = join_moves(graph)
    assert [node.op for node in joined.nodes] == ["Reshape", "Transpose", "Reshape"]
    assert_same(graph, joined)


def test_there_and_back_is_nothing():
    graph = row_of((2, 3, 4), ("Transpose", (2, 0, 1)), ("Transpose", (1, 2, 0)))
    joined = join_moves(graph)
    assert not joined.nodes
    assert_same(graph, joined)


def test_what_others_read_on_the_way_stays():
    graph = row_of((1, 5, 8, 6), *PARTITION, also=("%1",))
    joined = join_moves(graph)
    assert transposes(joined) == 2
    assert_same(graph, joined)


def test_a_row_that_cuts_axes_askew_is_joined_as_far_as_it_goes():
    row = (
        ("Transpose", (1, 0)),
        ("Reshape", (4, 6)),
        ("Transpose", (1, 0)),
        ("Reshape", (2, 3, 4)),
        ("Transpose", (2, 0, 1)),
    )
    graph = row_of((3, 8), *row[:2], *row[2:])
    assert_same(graph, join_moves(graph))
    askew = row_of((6, 4), ("Transpose", (1, 0)), ("Reshape", (6, 4)), ("Transpose", (1, 0)))
    assert join_moves(askew) == askew


@pytest.mark.parametrize("seed", range(40))
def test_any_row_gives_what_it_gave_in_no_more_transposes(seed):
    rng = np.random.default_rng(seed)
    pieces = [int(n) for n in rng.choice([1, 2, 2, 3, 4], 6)]
    moves, lying, shape = [], list(pieces), (math.prod(pieces),)
    for _ in range(int(rng.integers(2, 5))):
        ends = sorted(rng.choice(np.arange(1, 6), int(rng.integers(1, 5)), replace=False))
        parts = [lying[a:b] for a, b in zip([0, *ends], [*ends, 6], strict=True)]
        order = tuple(map(int, rng.permutation(len(parts))))
        moves += [("Reshape", tuple(map(math.prod, parts))), ("Transpose", order)]
        lying = [n for i in order for n in parts[i]]
    graph = row_of(shape, *moves)
    joined = join_moves(graph)
    assert transposes(joined) <= transposes(graph)
    assert all(len(v.shape) <= 5 for node in joined.nodes for v in node.outputs)
    assert_same(graph, joined)


def test_a_window_attention_turns_three_times(tmp_path):
    """Into its windows, out of them, and once for images that MLX has channels-last."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.attention = nn.Conv2d(3, 16, 1), nn.MultiHeadAttention(16, 2)

        def __call__(self, x):
            x = self.stem(x)
            B, H, W, C = x.shape
            y = mx.roll(x, (-2, -2), axis=(1, 2)).reshape(B, H // 4, 4, W // 4, 4, C)
            y = y.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 16, C)
            y = self.attention(y, y, y).reshape(B, H // 4, W // 4, 4, 4, C)
            y = y.transpose(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)
            return nn.relu(x + mx.roll(y, (2, 2), axis=(1, 2))).mean(axis=(1, 2))

    net, x = Windows().eval(), mx.random.normal((1, 16, 12, 3))
    path = export_module(net, x, tmp_path / "x.mlpackage", precision="float32")
    package = load_package(path)
    assert package.operations.count("transpose") == 3
    found = package.predict({"input": np.array(x)})["output"]
    np.testing.assert_allclose(found, np.array(net(x)), atol=1e-5)


def test_blocks_are_what_moves_together():
    assert blocks((2, 3, 1, 4), (3, 0, 1, 2)) == ([[0, 1], [3]], (1, 0))
    assert len(steps((1, 0))) == 1
