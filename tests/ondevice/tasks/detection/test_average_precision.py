"""Average precision by COCO's protocol, beside pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from ondevice.tasks.detection.average_precision import (
    FIGURES,
    Boxes,
    average_precision,
    class_figures,
    figures,
    match,
)
from ondevice.tasks.detection.coco import CocoImage

CLASSES = 4


def random_set(
    seed: int, *, images: int = 12, ties: bool = False
) -> tuple[list[CocoImage], list[Boxes]]:
    """Objects of all sizes, some crowds, some empty images, no object of the last class; boxes
    found near them and elsewhere. With ``ties`` scores and places repeat."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for number in range(images):
        count = int(rng.integers(0, 9))
        boxes = np.concatenate(
            [rng.uniform(0, 300, (count, 2)), np.exp(rng.uniform(1.5, 5.5, (count, 2)))], 1
        )
        if ties:
            boxes = np.round(boxes / 16) * 16 + 16
        areas = boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 1, count)
        classes = rng.integers(0, CLASSES - 1, count)
        crowd = rng.uniform(size=count) < 0.2
        truth.append(CocoImage(number, "", None, boxes, classes, areas, crowd))
        found.append(_near(rng, boxes, classes, ties))
    return truth, found


def _near(rng: np.random.Generator, boxes: Any, classes: Any, ties: bool) -> Boxes:
    again = rng.integers(0, max(len(boxes), 1), 3 * len(boxes))
    near, said = boxes[again].reshape(-1, 4), classes[again]
    near = near + rng.normal(0, 0.12, near.shape) * near[:, [2, 3, 2, 3]]
    far = np.concatenate([rng.uniform(0, 300, (10, 2)), rng.uniform(4, 150, (10, 2))], 1)
    near = np.concatenate([near, far])
    said = np.concatenate([said, rng.integers(0, CLASSES, 10)])
    if ties:
        near = np.round(near / 16) * 16
    near[:, 2:] = np.maximum(near[:, 2:], 1)
    scores = rng.uniform(size=len(near))
    return Boxes(near, said, np.round(scores, 1) if ties else scores)


def pycocotools_stats(truth: list[CocoImage], found: list[Boxes]) -> tuple[Any, Any]:
    """Its twelve numbers, and its precisions (IOU, RECALL, classes, areas, most)."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    objects = [
        {
            "image_id": image.id,
            "category_id": int(c),
            "bbox": b.tolist(),
            "area": float(a),
            "iscrowd": int(crowd),
        }
        for image in truth
        for b, c, a, crowd in zip(
            image.boxes, image.classes, image.areas, image.crowd, strict=True
        )
    ]
    results = [
        {
            "image_id": image.id,
            "category_id": int(c),
            "bbox": b.tolist(),
            "score": float(s),
        }
        for image, each in zip(truth, found, strict=True)
        for b, c, s in zip(each.boxes, each.classes, each.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        ours = coco.COCO()
        ours.dataset = {
            "images": [{"id": image.id} for image in truth],
            "categories": [{"id": k} for k in range(CLASSES)],
            "annotations": [o | {"id": k} for k, o in enumerate(objects, 1)],
        }
        ours.createIndex()
        run = cocoeval.COCOeval(ours, ours.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats, run.eval["precision"]


@pytest.mark.parametrize("ties", [False, True], ids=["apart", "ties"])
@pytest.mark.parametrize("seed", range(8))
def test_figures_are_those_of_pycocotools(seed: int, ties: bool) -> None:
    truth, found = random_set(seed, ties=ties)
    stats, precision = pycocotools_stats(truth, found)
    matches = match(truth, found, CLASSES)
    ours = [-1 if value is None else value for value in figures(matches).values()]
    np.testing.assert_allclose(ours, stats, rtol=0, atol=1e-12)
    assert 0.05 < ours[0] < 0.95
    for number, each in enumerate(class_figures("abcd", matches)):
        theirs = precision[:, :, number, 0, -1]
        if each.AP is None:
            assert (theirs == -1).all()
        else:
            assert pytest.approx(theirs.mean(), abs=1e-12) == each.AP
            np.testing.assert_allclose(each.precision, theirs[0], rtol=0, atol=1e-12)
    assert class_figures("abcd", matches)[-1].AP is None


def test_of_many_detections_the_surest_hundred_of_a_class_count() -> None:
    rng = np.random.default_rng(0)
    truth, found = random_set(3, images=3)
    many = []
    for each in found:
        boxes = np.repeat(each.boxes, 12, axis=0) + rng.normal(0, 1, (12 * len(each.boxes), 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
        many.append(Boxes(boxes, np.repeat(each.classes, 12), rng.uniform(size=len(boxes))))
    assert max(np.bincount(each.classes).max() for each in many) > 100
    stats, _ = pycocotools_stats(truth, many)
    ours = figures(match(truth, many, CLASSES)).values()
    known = [-1 if value is None else value for value in ours]
    np.testing.assert_allclose(known, stats, rtol=0, atol=1e-12)


def test_of_objects_that_are_overlapped_alike_the_last_is_taken() -> None:
    objects = np.array([[0, 0, 10, 10], [4, 0, 10, 10]], float)
    crowd = np.zeros(2, bool)
    truth = [CocoImage(0, "", None, objects, np.zeros(2, int), np.full(2, 100.0), crowd)]
    boxes = np.array([[2, 0, 10, 10], [4, 0, 10, 10]], float)
    found = [Boxes(boxes, np.zeros(2, int), np.array([0.9, 0.8]))]
    stats, _ = pycocotools_stats(truth, found)
    ours = figures(match(truth, found, 1))
    assert (ours["AP"], ours["AP50"]) == pytest.approx(stats[:2], abs=1e-12)


def test_what_is_exact_has_an_ap_of_one_and_nothing_found_of_none() -> None:
    truth, _ = random_set(0)
    exact = [Boxes(i.boxes, i.classes, np.ones(len(i.boxes))) for i in truth]
    none = [Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)) for _ in truth]
    best = figures(match(truth, exact, CLASSES))
    assert list(best) == list(FIGURES)
    assert best["AP"] == best["AP50"] == best["AR100"] == 1
    assert figures(match(truth, none, CLASSES))["AP"] == 0


def test_without_objects_there_is_no_figure() -> None:
    empty = CocoImage(
        0, "", None, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), np.zeros(0, bool)
    )
    found = Boxes(np.ones((1, 4)), np.zeros(1, int), np.ones(1))
    assert set(figures(match([empty], [found], CLASSES)).values()) == {None}


def test_images_count_as_often_as_is_said() -> None:
    truth, found = random_set(1)
    times = np.random.default_rng(0).integers(0, 4, len(truth))
    again = np.repeat(np.arange(len(truth)), times)
    repeated = match([truth[i] for i in again], [found[i] for i in again], CLASSES)
    rankings = [each.ranking() for each in match(truth, found, CLASSES)]
    wanted = figures(repeated)["AP"]
    assert average_precision(rankings, times) == pytest.approx(wanted, abs=1e-12)
    plain = figures(match(truth, found, CLASSES))["AP"]
    assert average_precision(rankings) == pytest.approx(plain, abs=1e-12)
    assert plain != wanted
