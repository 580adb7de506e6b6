"""Boxes and maps in the pixels of the photo they were found in."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from ondevice import create_model
from ondevice.config import Preprocess
from ondevice.errors import ConfigError
from ondevice.image.preprocess import resize_and_crop
from ondevice.signature import Input, Output, Signature
from ondevice.signature.coco import categories, mask_annotations
from ondevice.signature.decode import DROPPED, Frame, suppressed

CONTRACTS = {
    "squash": Preprocess(size=64, crop_pct=1, crop_mode="squash"),
    "cropped squash": Preprocess(size=64, crop_pct=0.8, crop_mode="squash"),
    "center": Preprocess(size=64, crop_pct=1, crop_mode="center"),
    "smaller center": Preprocess(size=64, crop_pct=0.75, crop_mode="center"),
    "letterbox": Preprocess(size=64, crop_pct=1, crop_mode="border", mean=(0, 0, 0)),
    "pad": Preprocess(size=64, crop_pct=1, crop_mode="pad"),
    "thumbnail": Preprocess(size=64, crop_pct=1, source_size=32),
}
PHOTOS = [(200, 120), (90, 240), (64, 64), (33, 150)]


def marked(size, spec):
    """Where a white square in the middle of a black photo is, and what the model sees."""
    width, height = size
    side = min(size) // 2
    left, top = (width - side) // 2 + 3, (height - side) // 2 - 2
    photo = Image.new("RGB", size)
    photo.paste((255, 255, 255), (left, top, left + side, top + side))
    return (left, top, side, side), resize_and_crop(photo, spec)[..., 0]


def centred(seen):
    """The white part of what the model sees, as a box of it: by its moments."""
    light = np.where(seen > 40, seen, 0) / seen.max()
    rows, columns = light.sum(axis=1), light.sum(axis=0)
    at = np.arange(len(seen)) + 0.5
    x, y = ((profile * at).sum() / profile.sum() for profile in (columns, rows))
    w, h = (profile.sum() / profile.max() for profile in (columns, rows))
    return np.array([x, y, w, h]) / len(seen)


@pytest.mark.parametrize("size", PHOTOS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_a_box_is_where_it_is_in_the_photo(name, size):
    spec = CONTRACTS[name]
    box, seen = marked(size, spec)
    found = Frame.of(size, spec).box(centred(seen))
    pixel = max(size) / 64  # what one of the model's is in the photo
    assert np.abs(np.array(found) - box).max() < 1.2 * pixel


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_map_is_where_it_is_in_the_photo(name):
    spec, size = CONTRACTS[name], (200, 120)
    box, seen = marked(size, spec)
    smooth, sharp = (
        Frame.of(size, spec).map(seen.astype(np.float32), smooth=s) for s in (True, False)
    )
    x, y, w, h = box
    assert smooth.shape == sharp.shape == (120, 200)
    for found in (smooth, sharp):
        assert found[y + 6 : y + h - 6, x + 6 : x + w - 6].min() > 200
        assert found[: y - 6].max() < 200
    assert set(np.unique(sharp)) <= set(np.unique(seen.astype(np.float32)))


def detector(labels=("cat", "dog"), max_overlap=1.0):
    spec = Preprocess(size=64, crop_pct=1, crop_mode="squash")
    image = Input("image", "image", (1, 64, 64, 3), contract=spec)
    boxes, scores = (
        Output("coordinates", "boxes", labels=labels, max_overlap=max_overlap),
        Output("confidence", "scores"),
    )
    return Signature((image,), (boxes, scores), ("coordinates", "confidence"))


VALUES = {
    "coordinates": mx.array([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.9, 0.4, 0.4], [0.5, 0.5, 1, 1]]]),
    "confidence": mx.array([[[0.1, 0.8], [0.9, 0.6], [0.2, 0.4]]]),
}


def test_objects_are_those_that_score_enough_the_surest_first():
    (found,) = detector().decode(VALUES, [(200, 100)])["coordinates"]
    assert [(d.label, d.index, round(d.score, 2)) for d in found] == [
        ("cat", 0, 0.9),
        ("dog", 1, 0.8),
        ("dog", 1, 0.6),
    ]
    assert np.allclose(found[1].box, (80, 30, 40, 40), atol=1e-3)
    assert np.allclose(found[0].box, (0, 70, 60, 30), atol=1e-3)  # cut off at the edges


def test_without_a_photo_boxes_are_parts_of_what_the_model_saw():
    (found,) = detector(()).decode(VALUES, threshold=0.85)["coordinates"]
    assert [d.label for d in found] == ["class 0"]
    assert np.allclose(found[0].box, (0, 0.7, 0.3, 0.3), atol=1e-6)


# A cat twice, a dog in the same place, and a cat beside that overlaps the first by a third.
SAME = {
    "coordinates": mx.array(
        [
            [
                [0.5, 0.5, 0.4, 0.4],
                [0.51, 0.5, 0.4, 0.4],
                [0.5, 0.5, 0.4, 0.4],
                [0.7, 0.5, 0.4, 0.4],
            ]
        ]
    ),
    "confidence": mx.array([[[0.7, 0.1], [0.9, 0.1], [0.1, 0.6], [0.8, 0.1]]]),
}


@pytest.mark.parametrize(
    ("max_overlap", "scores"),
    [(1, [0.9, 0.8, 0.7, 0.6]), (0.5, [0.9, 0.8, 0.6]), (0.3, [0.9, 0.6])],
)
def test_of_boxes_of_one_class_that_overlap_the_surer_stays(max_overlap, scores):
    (found,) = detector(max_overlap=max_overlap).decode(SAME, [(200, 100)])["coordinates"]
    assert [round(d.score, 2) for d in found] == scores
    assert found[-1].label == "dog"


def plain_suppression(boxes, scores, most):
    """Of one class, box by box: the positions of those that stay, the surest first."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        x, y, w, h = boxes[i]
        for a, b, c, d in (boxes[j] for j in kept):
            across = min(x + w, a + c) - max(x, a)
            down = min(y + h, b + d) - max(y, b)
            common = max(across, 0) * max(down, 0)
            if common and common / (w * h + c * d - common) > most:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("most", [0, 0.1, 0.5, 0.9])
def test_suppression_is_of_each_class_by_itself(most):
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 60, (80, 2)), rng.uniform(0, 40, (80, 2))], axis=1)
    boxes[7] = boxes[5]
    boxes[9, 2] = 0  # no area
    scores = rng.uniform(0, 1, (80, 3)).round(1)  # many are equal: the first stays
    found = suppressed(boxes, scores, most)
    for number in range(3):
        kept = plain_suppression(boxes.tolist(), scores[:, number].tolist(), most)
        assert 0 < len(kept) < 80
        assert sorted(kept) == np.flatnonzero(found[:, number] != DROPPED).tolist()
        assert (found[kept, number] == scores[kept, number]).all()


def test_nothing_is_suppressed_where_nothing_has_to_be():
    scores = np.ones((2, 1))
    assert suppressed(np.ones((2, 4)), scores, 1.0) is scores
    assert suppressed(np.ones((0, 4)), np.ones((0, 3)), 0.5).shape == (0, 3)


def test_boxes_with_one_score_each_are_arrays():
    values = {"coordinates": VALUES["coordinates"], "confidence": mx.zeros((1, 3))}
    assert detector().decode(values)["coordinates"].shape == (1, 3, 4)


def test_a_mask_is_run_lengths_in_coco():
    mask = np.array([[0, 0, 1], [0, 1, 1]])
    found = mask_annotations(mask, 7, iter([1, 2]))
    assert [a["category_id"] for a in found] == [0, 1]
    assert found[1]["segmentation"] == {"size": [2, 3], "counts": [3, 3]}
    assert found[0]["segmentation"]["counts"] == [0, 3, 3]
    assert found[1]["bbox"] == [1, 0, 2, 2]
    assert (found[1]["area"], found[1]["image_id"]) == (3, 7)
    json.dumps(found)
    assert categories(("a",), 2) == [{"id": 0, "name": "a"}, {"id": 1, "name": "class 1"}]


def test_all_that_a_detector_can_give_is_decoded():
    model = create_model("light_detr_shvit_nano.shapes")
    signature, photo = model.signature, (200, 120)
    (size,) = {given.shape[1] for given in signature.images}
    outputs = signature.compute(model, mx.random.uniform(shape=(1, size, size, 3)))
    found = signature.decode(outputs, [photo], threshold=0.1)
    usual = signature.select().decode(outputs, [photo], threshold=0.1)
    assert found["coordinates"] == usual["coordinates"] != [[]]
    assert np.array_equal(found["raw_coordinates"], np.array(outputs["raw_coordinates"]))


def test_what_cannot_be_decoded_is_refused_in_a_line():
    model = create_model("light_detr_shvit_nano.shapes")
    signature = model.signature.select()
    (size,) = {given.shape[1] for given in signature.images}
    outputs = signature.compute(model, mx.zeros((1, size, size, 3)))
    with pytest.raises(ConfigError, match=r"it has no confidence: signature\.select"):
        signature.decode({"coordinates": outputs["coordinates"]})
    with pytest.raises(ConfigError, match="takes a dict of outputs by name"):
        signature.decode(outputs["coordinates"])
    with pytest.raises(ConfigError, match=r"sizes are \(width, height\) of each photo"):
        signature.decode(outputs, (200, 120))
    with pytest.raises(ConfigError, match="2 sizes of photos for 1 images"):
        signature.decode(outputs, [(200, 120), (90, 240)])
