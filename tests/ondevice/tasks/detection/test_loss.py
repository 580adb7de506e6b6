"""The loss of a detector: gradients by differences, and what it is least for."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from ondevice import create_model
from ondevice.tasks.detection import loss
from ondevice.tasks.detection.loss import detection_loss
from ondevice.tasks.detection.start import initialize
from ondevice.tasks.detection.task import padded

LABELS = [((1, 0.3, 0.4, 0.2, 0.3), (0, 0.7, 0.6, 0.3, 0.2)), ((2, 0.5, 0.5, 0.6, 0.6),), ()]
TARGETS = padded(LABELS)


def found(seed=0, queries=6, layers=2):
    rng = np.random.default_rng(seed)
    return [
        (
            mx.array(rng.normal(size=(3, queries, 3)).astype(np.float32)),
            mx.array(rng.uniform(0.2, 0.6, (3, queries, 4)).astype(np.float32)),
        )
        for _ in range(layers)
    ]


def test_targets_are_padded_to_the_most_objects():
    assert TARGETS["classes"].tolist() == [[1, 0], [2, -1], [-1, -1]]
    assert TARGETS["boxes"][0, 1].tolist() == pytest.approx([0.7, 0.6, 0.3, 0.2])


def test_gradients_of_boxes_are_those_of_differences(monkeypatch):
    """Along random directions, of which a step changes no matching."""
    monkeypatch.setattr(loss, "CLASS_WEIGHT", 0.0)  # whose targets follow the boxes
    logits, boxes = found()[1]

    def value(x):
        return detection_loss([(logits, x)], TARGETS)

    gradient = np.array(mx.grad(value)(boxes), np.float64)
    rng = np.random.default_rng(3)
    for _ in range(4):
        way = rng.uniform(-1, 1, boxes.shape)
        step = mx.array((1e-3 * way).astype(np.float32))
        rise = (value(boxes + step).item() - value(boxes - step).item()) / 2e-3
        assert rise == pytest.approx((gradient * way).sum(), rel=0.01, abs=0.01)


def test_gradients_of_scores_lead_to_the_quality_of_the_box():
    """As far as each weighs: 1 where an object is, and little where rightly none is."""
    logits = mx.array([[[2.0, -3.0], [1.0, -1.0]]])
    hot = mx.array([[[1.0, 0.0], [0.0, 0.0]]])
    quality = mx.array([[0.7, 0.0]])
    found = mx.grad(lambda x: loss.varifocal(x, hot, quality).sum())(logits)
    share = 1 / (1 + np.exp(-np.array(logits)))
    wanted = share**1.5 * share
    wanted[0, 0] = share[0, 0] - (0.7, 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_what_is_right_costs_least():
    right = np.full((3, 6, 3), -12, np.float32)
    boxes = np.full((3, 6, 4), 0.1, np.float32)
    for row, objects in enumerate(LABELS):
        for i, (number, *box) in enumerate(objects):
            right[row, i, number], boxes[row, i] = 12, box
    least = detection_loss([(mx.array(right), mx.array(boxes))], TARGETS).item()
    assert least == pytest.approx(0, abs=1e-3)
    for i in range(4):
        other = boxes.copy()
        other[0, 0, i] += 0.05
        worse = detection_loss([(mx.array(right), mx.array(other))], TARGETS)
        assert worse.item() > least + 0.01


def test_images_without_objects_have_a_loss():
    layers = [(x[2:], y[2:]) for x, y in found()]
    targets = padded([()])
    assert 0 < detection_loss(layers, targets).item() < 50
    gradient = mx.grad(lambda x: detection_loss([(x, layers[0][1])], targets))(layers[0][0])
    assert (np.array(gradient) >= 0).all()  # every score has to fall


def test_candidates_with_anchors_are_matched_by_these():
    """Wherever their boxes are by now."""
    (logits, boxes), *_ = found()
    anchors = mx.array(np.tile(np.float32([[0.9, 0.9, 0.1, 0.1]]), (6, 1)))
    anchors[4] = mx.array([0.5, 0.5, 0.3, 0.3])
    targets = padded(LABELS[1:2])

    def value(x):
        return detection_loss([(logits[:1], x, anchors)], targets)

    moved = np.abs(np.array(mx.grad(value)(boxes[:1]))).sum(axis=-1)
    assert (moved[0] > 0).tolist() == [False] * 4 + [True, False]


TINY = {
    "num_classes": 3,
    "encoder_dim": 16,
    "encoder_ffn": 16,
    "decoder_dim": 16,
    "decoder_ffn": 16,
    "queries": 6,
}


def test_every_parameter_of_a_detector_learns(monkeypatch):
    mx.random.seed(0)
    model = create_model("light_detr_shvit_nano", **TINY)
    initialize(model)
    model.train()
    x = mx.random.normal((3, 128, 128, 3))
    parameters = dict(tree_flatten(model.trainable_parameters()))
    # What is zero at first lets nothing through.
    parameters = {k: v + 0.01 * mx.random.normal(v.shape) for k, v in parameters.items()}

    def value(arrays):
        model.update(tree_unflatten(list(arrays.items())))
        return detection_loss(model.candidates(x), TARGETS)

    gradients = mx.grad(value)(parameters)
    still = [k for k, g in gradients.items() if not float(mx.abs(g).max()) > 0]
    # A constant of all keys changes no softmax.
    assert not [k for k in still if not k.endswith("k_proj.bias")]
    monkeypatch.setattr(loss, "CLASS_WEIGHT", 0.0)  # whose targets follow the boxes
    name = "decoder.layers.1.mlp.fc2.weight"
    gradient = mx.grad(value)(parameters)[name]
    step = gradient * (0.001 / mx.square(gradient).sum())
    ends = [value({**parameters, name: parameters[name] + s * step}).item() for s in (1, -1)]
    assert (ends[0] - ends[1]) / 2 == pytest.approx(0.001, rel=0.05)
