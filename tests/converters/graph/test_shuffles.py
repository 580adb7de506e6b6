"""Pixels that become channels, and channels pixels, are one operation in any spelling."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from ...support.lowered import assert_lowered, ops

X = mx.array(np.random.default_rng(4).normal(size=(2, 4, 6, 8)).astype(np.float32))
PLANES = mx.array(np.random.default_rng(5).normal(size=(2, 8, 4, 6)).astype(np.float32))


def rows_then_columns(x):
    """As InternVL merges patches: one axis after the other, in four axes all the time."""
    B, H, W, C = x.shape
    x = x.reshape(B, H, W // 2, C * 2).transpose(0, 2, 1, 3)
    return x.reshape(B, W // 2, H // 2, C * 4).transpose(0, 2, 1, 3)


def split(x):
    """Channels as four pixels and the rest, and the other way round."""
    B, H, W, C = x.shape
    return (B, H, W, 2, 2, C // 4), (B, H, W, C // 4, 2, 2), (B, 2 * H, 2 * W, C // 4)


def joined(x):
    B, H, W, C = x.shape
    return (B, H // 2, 2, W // 2, 2, C), (B, H // 2, W // 2, 4 * C)


SPELLINGS = {
    "DepthToSpace": lambda x: (
        x.reshape(split(x)[0]).transpose(0, 1, 3, 2, 4, 5).reshape(split(x)[2])
    ),
    "PixelShuffle": lambda x: (
        x.reshape(split(x)[1]).transpose(0, 1, 4, 2, 5, 3).reshape(split(x)[2])
    ),
    "SpaceToDepth": lambda x: (
        x.reshape(joined(x)[0]).transpose(0, 1, 3, 2, 4, 5).reshape(joined(x)[1])
    ),
    "PixelUnshuffle": lambda x: (
        x.reshape(joined(x)[0]).transpose(0, 1, 3, 5, 2, 4).reshape(joined(x)[1])
    ),
}


@pytest.mark.parametrize("op", SPELLINGS)
def test_a_shuffle_is_one_operation(op):
    assert_lowered(SPELLINGS[op], X)
    assert ops(SPELLINGS[op], X) == {op: 1, "Transpose": 2}  # of input and output


def test_of_planes_it_moves_nothing_else():
    def shuffle(x):
        x = x.reshape(2, 2, 2, 2, 4, 6).transpose(0, 1, 4, 2, 5, 3)
        return x.reshape(2, 2, 8, 12)

    assert_lowered(shuffle, PLANES)
    assert ops(shuffle, PLANES) == {"PixelShuffle": 1}


def test_patches_merged_an_axis_at_a_time_are_one_operation():
    assert_lowered(rows_then_columns, X)
    assert ops(rows_then_columns, X)["SpaceToDepth"] == 1


def test_windows_are_no_shuffle():
    def windows(x):
        x = x.reshape(2, 2, 2, 3, 2, 8).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(12, 2, 2, 8)

    assert_lowered(windows, X)
    assert not ops(windows, X).keys() & SPELLINGS.keys()
