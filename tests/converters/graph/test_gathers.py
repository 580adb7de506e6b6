"""Whatever is picked by index, in any spelling, is slices and gathers along one axis."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from ...support.lowered import assert_lowered, ops, run_half

RNG = np.random.default_rng(1)
X = mx.array(RNG.normal(size=(2, 4, 5, 6)).astype(np.float32))
ONE = X[:1] * 1
I3 = mx.array([2, 0, 1])
NEGATIVE = mx.array([-1, 0, -2])
ROWS, COLUMNS = mx.array(RNG.integers(0, 4, (3, 7))), mx.array(RNG.integers(0, 5, (3, 7)))
BATCH = mx.arange(2)[:, None]
mx.eval(ONE, BATCH, ROWS, COLUMNS)


def near(x: mx.array, count: int) -> mx.array:
    """Indices that are computed."""
    return mx.clip(mx.round(mx.abs(x) * 3).astype(mx.int32), 0, count - 1)


PICKS = {
    "second axis": lambda x: x[:, I3],
    "third axis": lambda x: mx.take(x, I3, axis=2),
    "last axis": lambda x: x[..., I3],
    "one axis after the other": lambda x: x[:, I3][:, :, I3],
    "an outer product": lambda x: x[:, I3[:, None], I3],
    "a shape of indices in the middle": lambda x: mx.take(x, ROWS, axis=1),
    "from the end": lambda x: x[:, NEGATIVE],
    "pairs": lambda x: x[:, ROWS, COLUMNS],
    "pairs of axes that lie apart": lambda x: x[ROWS % 2, :, COLUMNS],
    "a range": lambda x: x[:, mx.arange(1, 4)],
    "every second": lambda x: x[:, :, mx.arange(0, 5, 2)],
    "computed along an axis": lambda x: mx.take(x, near(x[0, :, 0, 0], 5), axis=2),
    "computed pairs": lambda x: x[:, near(x[0, 0], 4), near(x[1, 0], 5)],
    "computed, of each image its own": lambda x: x.reshape(2, 20, 6)[
        BATCH, near(x[:, 0, :, 0], 20)
    ],
    "computed, maybe from the end": lambda x: x[:, near(x[0, :, 0, 0], 4) - 2, I3[:1]],
    "along an axis, one index for all": lambda x: mx.take_along_axis(
        x, mx.broadcast_to(near(x[0, 0, 0], 4)[:4, None, None], (2, 4, 5, 6)), axis=1
    ),
    "along an axis, each its own": lambda x: mx.take_along_axis(x, near(x, 4), axis=1),
}


@pytest.mark.parametrize("name", PICKS)
def test_what_is_picked_is_what_mlx_picks(name):
    assert_lowered(PICKS[name], X)


@pytest.mark.parametrize("name", ["second axis", "last axis", "from the end", "pairs"])
def test_of_one_image_too(name):
    assert_lowered(PICKS[name], ONE)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("second axis", {"Take": 1}),
        ("one axis after the other", {"Take": 2}),
        ("an outer product", {"Take": 2}),
        ("a range", {"Slice": 1}),
        ("every second", {"Slice": 1}),
    ],
)
def test_constant_indices_are_an_op_an_axis(name, wanted):
    assert dict(ops(PICKS[name], X)) == wanted


class Shuffled(nn.Module):
    """Channels in another order between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 6, 2), nn.Conv2d(6, 6, 2)

    def __call__(self, x):
        return self.second(self.first(x)[..., mx.array([3, 1, 0, 2, 4, 5])])


def test_picking_channels_between_convolutions_moves_nothing():
    assert list(ops(Shuffled(), X)) == ["Transpose", "Conv", "Take"]
    assert ops(Shuffled(), X)["Transpose"] == 2  # the input's and the output's


def test_rows_picked_one_after_the_other_have_their_ranges_measured():
    """As in a suppression of overlapping boxes: each choice depends on the one before."""

    def chosen(x):
        rows, scores = x[0, 0], x[0, 0, :, 0]
        for _ in range(3):
            i = mx.argmax(scores)
            scores = mx.where(mx.abs(rows - rows[i]).sum(1) > scores[i], scores, -1.0)
        return rows[i]

    (got,) = run_half(chosen, X)
    np.testing.assert_allclose(got, np.array(chosen(X)), rtol=1e-3)
