"""The loss of a segmenter: what it is, its gradients, and that all parameters have one."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from ondevice import create_model
from ondevice.tasks.segmentation.loss import cells, pixel_cross_entropy

CELL, CLASSES = 4, 3


def example(seed: int = 0) -> tuple[Any, Any, mx.array]:
    """(2, 3, 2, classes) scores, (2, 12, 8) classes of pixels, and their cells."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(2, 3, 2, CLASSES)).astype(np.float32)
    there = rng.integers(-1, CLASSES, (2, 12, 8))
    there[1, :4, :4] = -1  # a whole cell
    return scores, there, counted(there)


def counted(there: Any) -> mx.array:
    return mx.array(np.stack([cells(each, CELL, CLASSES) for each in there]))


def test_it_is_the_cross_entropy_of_every_pixel() -> None:
    scores, there, counts = example()
    logs = scores.astype(np.float64).repeat(CELL, axis=1).repeat(CELL, axis=2)
    logs -= np.log(np.exp(logs).sum(axis=-1, keepdims=True))
    own = -np.take_along_axis(logs, there[..., None].clip(0), axis=-1)[..., 0]
    wanted = np.mean([o[t >= 0].mean() for o, t in zip(own, there, strict=True)])
    assert pixel_cross_entropy(mx.array(scores), counts).item() == pytest.approx(wanted, 1e-5)


def test_cells_count_pixels() -> None:
    there = np.full((8, 4), -1)
    there[:3, 0], there[5, 1:3] = 2, 1
    assert cells(there, CELL, CLASSES)[:, 0].tolist() == [[0, 0, 3], [0, 2, 0]]


def test_pixels_that_do_not_count_have_no_gradient() -> None:
    scores, _, counts = example()
    gradient = np.array(mx.grad(lambda x: pixel_cross_entropy(x, counts))(mx.array(scores)))
    assert (gradient[1, 0, 0] == 0).all()
    assert (np.abs(gradient).sum(axis=-1) > 0).sum() == 11  # of twelve cells


def test_gradients_are_those_of_differences() -> None:
    scores, _, counts = example(1)
    gradient = np.array(mx.grad(lambda x: pixel_cross_entropy(x, counts))(mx.array(scores)))
    way = np.random.default_rng(2).uniform(-1, 1, scores.shape).astype(np.float32)
    ends = [
        pixel_cross_entropy(mx.array(scores + s * 1e-2 * way), counts).item() for s in (1, -1)
    ]
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(float((gradient * way).sum()), rel=1e-2)


def test_an_image_where_nothing_counts_has_no_loss() -> None:
    scores, there, _ = example()
    there[1] = -1
    loss = pixel_cross_entropy(mx.array(scores), counted(there)).item()
    first = pixel_cross_entropy(mx.array(scores[:1]), counted(there[:1])).item()
    assert loss == pytest.approx(first / 2)


def test_parts_of_a_batch_have_its_loss() -> None:
    scores, _, counts = example()
    parts = [
        pixel_cross_entropy(mx.array(scores[i : i + 1]), counts[i : i + 1]) for i in (0, 1)
    ]
    whole = pixel_cross_entropy(mx.array(scores), counts).item()
    assert sum(part.item() for part in parts) / 2 == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("name", ["light_fpn_shvit_nano", "light_fpn_efficientvit_m0"])
def test_every_parameter_of_a_segmenter_learns(name: str) -> None:
    mx.random.seed(0)
    model = create_model(name, num_classes=CLASSES, dim=8)
    model.train()
    x = mx.random.normal((2, 128, 128, 3))
    there = np.random.default_rng(0).integers(0, CLASSES, (2, 128, 128))
    counts = counted(there)
    parameters = dict(tree_flatten(model.trainable_parameters()))

    def value(arrays: dict[str, mx.array]) -> mx.array:
        model.update(tree_unflatten(list(arrays.items())))
        return pixel_cross_entropy(model(x), counts)

    gradients = mx.grad(value)(parameters)
    still = [k for k, g in gradients.items() if not float(mx.abs(g).max()) > 0]
    assert still == []
