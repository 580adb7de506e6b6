"""What detectors give to Vision, and say of themselves."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from ondevice import create_model
from ondevice.errors import ConfigError
from ondevice.nn.detection import Detector
from ondevice.signature import OBJECTS

from ..models.test_detectors import LIGHT


@pytest.mark.parametrize(("classes", "columns"), [(1, 80), (5, 80), (80, 80), (81, 160)])
def test_each_box_has_its_surest_class_alone(classes, columns):
    model = create_model("light_detr_shvit_nano", **(LIGHT | {"num_classes": classes}))
    x = mx.random.normal((1, 128, 128, 3), key=mx.random.key(0))
    plain = {name: np.array(value[0]) for name, value in model(x).items()}
    found = {name: np.array(value) for name, value in model.objects(x).items()}
    scores = found["raw_confidence"]
    assert scores.shape == (12, columns)
    np.testing.assert_allclose(scores.sum(-1), plain["confidence"].max(-1), rtol=1e-6)
    assert (scores.argmax(-1) == plain["confidence"].argmax(-1)).all()
    np.testing.assert_array_equal(found["raw_coordinates"], plain["coordinates"])


def test_labels_have_to_fit_the_classes():
    model = create_model("light_detr_shvit_nano", **LIGHT)
    model.info = replace(model.info, labels=("a", "b"))
    with pytest.raises(ConfigError, match="2 for 5 classes"):
        model.objects(mx.zeros((1, 128, 128, 3)))


def test_objects_are_a_group_beside_the_default_outputs(monkeypatch):
    monkeypatch.setattr(Detector, "max_overlap", 0.5)
    signature = create_model("light_detr_shvit_nano", **LIGHT).signature
    assert signature.default_outputs == ("confidence", "coordinates")
    chosen = signature.select(OBJECTS).outputs
    assert [(o.name, o.kind) for o in chosen] == [
        ("raw_confidence", "scores"),
        ("raw_coordinates", "boxes"),
    ]
    boxes = [o for o in signature.outputs if o.kind == "boxes"]
    assert [o.max_overlap for o in boxes] == [0.5, 0.5]
    assert "no suppression" not in signature.outputs[0].text
