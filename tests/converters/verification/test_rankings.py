"""Indices that rank are judged by the values that they name."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export_module, verify
from converters.verification.rankings import Ranking, rankings

mx.random.seed(0)
X, Y = mx.random.normal((2, 4, 64))
SCORES = nn.Linear(64, 300)
RANKED = {
    "argsort": lambda s: mx.argsort(s, axis=1),
    "the first of them": lambda s: mx.argsort(-s, axis=1)[:, :10],
    "argpartition": lambda s: mx.argpartition(s, 10, axis=1)[..., :10],
    "argmax": lambda s: mx.argmax(s, axis=1),
    "a method, of another type": lambda s: s.argmin(axis=1, keepdims=True).astype(mx.int32),
    "of all": mx.argmax,
    "topk": lambda s: mx.topk(s, 7, axis=1),
    "topk of all": lambda s: mx.topk(s, 7, axis=None),
    "partition": lambda s: mx.partition(s, 7, axis=1),
}


class Ranks(nn.Module):
    def __init__(self, fn, scores=SCORES):
        super().__init__()
        self.fn, self.scores = fn, scores

    def __call__(self, x):
        return self.fn(self.scores(x))


def exported(net, folder, precision):
    return export_module(net.eval(), X, folder / "x.mlpackage", precision=precision)


@pytest.mark.parametrize("precision", ["float16", "float32"])
@pytest.mark.parametrize("case", RANKED)
def test_an_honest_package_passes(case, precision, tmp_path):
    net = Ranks(RANKED[case])
    report = verify(net, exported(net, tmp_path, precision), [X, Y])
    assert report.passed, report.failures


@pytest.mark.parametrize("case", RANKED)
def test_a_package_of_other_scores_does_not(case, tmp_path):
    mx.random.seed(1)
    path = exported(Ranks(RANKED[case], nn.Linear(64, 300)), tmp_path, "float32")
    assert not verify(Ranks(RANKED[case]), path, [X, Y]).passed


def test_how_many_indices_are_others_is_said(tmp_path):
    """Values that half precision cannot tell apart are ranked in another order."""
    net = Ranks(lambda s: mx.argsort(5 + 0.01 * s, axis=1))
    report = verify(net, exported(net, tmp_path, "float16"), [X])
    assert report.passed, report.failures
    (said,) = report.notes
    assert "of the indices in output are others than the model's" in said


def test_an_index_of_nothing_is_not_a_number():
    ranking = Ranking(np.array([2, 0]), np.array([[3.0, 1, 2], [5, 4, 6]]), 1, (2, 1))
    wanted, found = ranking.compared(np.array([1, 3]))
    np.testing.assert_array_equal(wanted, [2, 5])
    np.testing.assert_array_equal(found, [1, np.nan])
    assert ranking.agreement(np.array([2, 1])) == 0.5


def test_mlx_is_left_as_it_was():
    names = ("argsort", "argpartition", "partition", "topk", "argmax", "argmin")
    before = [getattr(mx, name) for name in names]
    with rankings() as known:
        assert known.of(mx.argmax(X)) is not None
        assert known.of(X) is None
    assert [getattr(mx, name) for name in names] == before
    assert X.argmax().item() == mx.argmax(X).item()
