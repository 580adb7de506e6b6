"""Which candidate stands for which object, against every possibility and against SciPy."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from ondevice.tasks.detection.matching import (
    NONE,
    assignment,
    costs,
    match,
    match_anchors,
)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_assignment_costs_less(seed):
    rng = np.random.default_rng(seed)
    rows, columns = 1 + seed % 4, 5
    cost = rng.normal(size=(rows, columns))
    if seed % 2:  # many that cost the same
        cost = cost.round()
    chosen = assignment(cost)
    assert len({*chosen.tolist()}) == rows
    least = min(cost[range(rows), p].sum() for p in permutations(range(columns), rows))
    assert cost[range(rows), chosen].sum() == pytest.approx(least)


def test_large_ones_are_those_of_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for _ in range(50):
        cost = np.tile(rng.normal(size=(8, 60)), (4, 1))  # rows that want the same
        wanted = cost[optimize.linear_sum_assignment(cost)].sum()
        assert cost[range(32), assignment(cost)].sum() == pytest.approx(wanted)


BOXES = np.array([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.3, 0.3], [0.5, 0.5, 0.1, 0.1]])
LOGITS = np.array([[4.0, -4], [-4, 4], [0, 0]])


def test_each_object_has_the_candidate_that_is_most_like_it():
    at = match(LOGITS, BOXES, BOXES[[1, 0]], np.array([1, 0]))
    assert at.tolist() == [1, 0, NONE]


def test_the_class_decides_between_equal_boxes():
    same = BOXES[[0, 0, 0]]
    assert match(LOGITS, same, same[:1], np.array([1])).tolist() == [NONE, 0, NONE]


def test_more_objects_than_candidates_leave_some_without():
    at = match(LOGITS[:1], BOXES[:1], BOXES, np.array([0, 1, 1]))
    assert at.tolist() == [0]


def test_an_image_without_objects_matches_nothing():
    at = match(LOGITS, BOXES, np.zeros((0, 4)), np.zeros(0, int))
    assert at.tolist() == [NONE] * 3


ANCHORS = np.array(  # two finer ones beside each other, and a coarser one in the same place
    [[0.25, 0.25, 0.1, 0.1], [0.75, 0.25, 0.1, 0.1], [0.25, 0.25, 0.4, 0.4]]
)


def test_an_anchor_is_for_objects_of_its_place_and_size():
    objects = np.array([[0.3, 0.3, 0.6, 0.6], [0.7, 0.3, 0.2, 0.15]])
    assert match_anchors(ANCHORS, objects).tolist() == [NONE, 1, 0]
    assert match_anchors(ANCHORS, objects[:0]).tolist() == [NONE] * 3


def test_of_two_objects_in_a_place_each_has_an_anchor():
    objects = np.array([[0.25, 0.25, 0.3, 0.3], [0.25, 0.25, 0.2, 0.2]])
    assert match_anchors(ANCHORS, objects).tolist() == [1, NONE, 0]


def test_what_is_alike_costs_least():
    found = costs(LOGITS, BOXES, BOXES[:2], np.array([0, 1]))
    assert found.argmin(axis=0).tolist() == [0, 1]
