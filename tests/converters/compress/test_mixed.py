"""A format for each layer: the front of size and cost, and budgets."""

from __future__ import annotations

from xml.etree import ElementTree

import mlx.core as mx
import numpy as np
import pytest

from converters.compress.mixed import Choice, agreeing, front, within
from ondevice.errors import ConfigError
from ondevice.weights.output import folder_bytes

from .odd import exported


def choices(path, *points):
    return [Choice(path, ("palettize", (("bits", b),)), size, cost) for b, size, cost in points]


def test_the_front_takes_the_step_that_saves_most_a_byte():
    a = choices("a", (2, 10, 8.0), (4, 20, 1.0), (8, 40, 0.0))
    b = choices("b", (2, 10, 4.0), (8, 40, 0.5))
    points = front([a, b])
    assert [p.bytes for p in points] == [20, 30, 60, 80]
    assert [p.cost for p in points] == sorted((p.cost for p in points), reverse=True)
    assert within(points, 130, 100).bytes == 30
    assert within(points, 1000, 100).cost == 0.5
    with pytest.raises(ConfigError, match=r"the smallest is 0\.000 MB"):
        within(points, 119, 100)


def test_the_smallest_that_agrees_is_found():
    points = front([choices("a", (1, 1, 9.0), (2, 2, 4.0), (3, 3, 2.0), (4, 4, 1.0))])
    agreement = {1: 0.5, 2: 0.8, 3: 0.95, 4: 0.99}
    found = agreeing(points, 0.9, lambda p: agreement[int(p.bytes)])
    assert found.bytes == 3
    with pytest.raises(ConfigError, match=r"the best 99\.0%"):
        agreeing(points, 1.0, lambda p: agreement[int(p.bytes)])


def test_a_budget_is_kept_and_spent_where_it_counts(odd, samples, tmp_path):
    uniform, account = exported(
        odd, tmp_path / "a.mlpackage", recipe="palette4", target="iOS18", calibration=samples
    )
    budget = folder_bytes(uniform.path) + 8192
    mixed, found = exported(
        odd, tmp_path / "b.mlpackage", budget=budget, target="iOS18", calibration=samples
    )
    assert folder_bytes(mixed.path) <= budget
    assert found.forms.keys() == account.forms.keys()
    wanted = [np.array(odd(mx.array(x))) for x in samples]
    lost = [
        sum(
            np.square(p.predict({"input": x})["output"] - y).sum()
            for x, y in zip(samples, wanted, strict=True)
        )
        for p in (uniform, mixed)
    ]
    assert lost[1] < lost[0]


def test_the_front_shows_what_other_sizes_cost(odd, samples, tmp_path):
    package, account = exported(
        odd, tmp_path / "a.mlpackage", budget=60_000, calibration=samples, front=True
    )
    front = account.front
    said = front.to_dict()
    sizes = [p["bytes"] for p in said["points"]]
    assert sizes == sorted(sizes)
    assert 4 <= len(sizes) <= 13
    assert front.points[said["chosen"]].recipe == account.recipe
    assert abs(sizes[said["chosen"]] - folder_bytes(package.path)) < 4096
    assert [len(p["recipe"]) for p in said["points"]] == [7] * len(sizes)
    assert all(0 <= p["agreement"] <= 1 for p in said["points"])
    assert sum(row[0].endswith("*") for row in front.rows()) == 1
    svg = ElementTree.fromstring(front.to_svg())
    assert len(svg.findall("{*}g/{*}circle")) == len(sizes)
    assert len(svg.findall("{*}g/{*}circle[@class='mark']")) == 1


def test_a_budget_too_small_says_the_smallest(odd, samples, tmp_path):
    with pytest.raises(
        ConfigError, match=r"no format fits into 0\.002 MB; the smallest is 0\.0"
    ):
        exported(odd, tmp_path / "a.mlpackage", budget=2000, calibration=samples)
    assert not list(tmp_path.iterdir())
