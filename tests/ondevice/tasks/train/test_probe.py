"""Heads on given features."""

from __future__ import annotations

import numpy as np
import pytest

from ondevice.tasks.train import probe
from ondevice.tasks.train.metrics import log_softmax

EQUAL = np.ones(3)


@pytest.fixture(scope="module")
def clouds():
    """Three clouds that overlap in two of twelve dimensions of unequal scale."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    x = rng.normal(0, 1, (300, 12))
    x[:, :2] += 2 * np.array([[0, 0], [1.2, 0], [0, 1.2]])[labels]
    return (3 + x * np.logspace(-2, 1, 12)).astype(np.float32), labels


def test_the_minimum_is_scipys(clouds):
    optimize = pytest.importorskip("scipy.optimize")

    def rosenbrock(x):
        return optimize.rosen(x), optimize.rosen_der(x)

    np.testing.assert_allclose(probe.minimize(rosenbrock, np.zeros(4)), 1, atol=1e-4)
    x, labels = clouds
    z = (x - x.mean(0)) / x.std(0)
    head = probe.fit(z, labels, EQUAL, 0.01)

    def loss(flat):
        weight, bias = flat[:36].reshape(3, 12), flat[36:]
        logs = log_softmax(z @ weight.T + bias)
        return -logs[np.arange(300), labels].mean() + 0.005 * (weight**2).sum()

    wanted = optimize.minimize(loss, np.zeros(39), tol=1e-12)
    found = loss(np.concatenate([head.weight.ravel(), head.bias]))
    assert found == pytest.approx(wanted.fun, abs=1e-7)
    np.testing.assert_allclose(head.weight, wanted.x[:36].reshape(3, 12), atol=2e-3)


def test_regression_beats_neighbours_where_most_dimensions_are_noise(clouds):
    x, labels = clouds
    head, strength = probe.regression(x[:150], labels[:150], EQUAL)
    right = (head(x[150:]).argmax(-1) == labels[150:]).mean()
    votes = probe.nearest_neighbours(x[:150], labels[:150], x[150:], 3)
    assert right > 0.8 > (votes.argmax(-1) == labels[150:]).mean()
    assert min(probe.STRENGTHS) < strength < max(probe.STRENGTHS)


def test_neighbours_vote(clouds):
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    x = np.eye(3)[labels] + rng.normal(0, 0.1, (60, 3))
    votes = probe.nearest_neighbours(x[:30], labels[:30], x[30:], 3)
    assert (votes.argmax(-1) == labels[30:]).all()


def test_the_nearest_mean_is_a_linear_layer(clouds):
    x, labels = clouds
    scores = probe.class_means(x, labels, 3)(x)
    z = (x - x.mean(0)) / x.std(0)
    means = np.stack([z[labels == c].mean(0) for c in range(3)])
    distances = np.linalg.norm(z[:, None] - means, axis=-1)
    np.testing.assert_array_equal(scores.argmax(-1), distances.argmin(-1))


def test_a_weight_makes_a_class_more_likely(clouds):
    x, labels = clouds
    plain, _ = probe.regression(x, labels, EQUAL)
    heavy, _ = probe.regression(x, labels, np.array([5.0, 1, 1]))
    assert (heavy(x).argmax(-1) == 0).sum() > (plain(x).argmax(-1) == 0).sum()


def test_two_images_a_class_are_enough():
    x = np.array([[0.0, 1], [1, 0], [0, 1.1], [1.1, 0]])
    head, _ = probe.regression(x, np.array([0, 1, 0, 1]), np.ones(2))
    assert head(x).argmax(-1).tolist() == [0, 1, 0, 1]
