"""Boxes stay on their objects, however the image is changed."""

from __future__ import annotations

import numpy as np
import pytest

from ondevice import Preprocess
from ondevice.tasks.detection.augment import BoxAugment, seen

from .scenes import SIDE, scene

SPEC = Preprocess(size=96, crop_pct=1, crop_mode="squash")
COLOURS = {0: (60, 200, 250), 1: (240, 220, 40)}


def labelled(seed):
    image, objects = scene(np.random.default_rng(seed))
    label = tuple(
        (c, (x + w / 2) / SIDE, (y + h / 2) / SIDE, w / SIDE, h / SIDE)
        for c, (x, y, w, h) in objects
    )
    return image, label


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_their_objects(seed):
    image, label = labelled(seed)
    augment = BoxAugment(changes=0)
    pixels, found = augment.labelled(image, label, SPEC, np.random.default_rng(seed))
    assert pixels.shape == (96, 96, 3)
    for number in {c for c, *_ in found}:
        like = np.abs(pixels.astype(int) - COLOURS[number]).max(axis=-1) < 40
        own = [box for c, *box in found if c == number]
        inside = np.zeros((96, 96), bool)
        for x, y, w, h in own:
            low, high = (np.array([x, y]) + s * np.array([w, h]) / 2 for s in (-1, 1))
            (left, top), (right, bottom) = (low * 96).round().astype(int), (high * 96).round()
            inside[top : int(bottom), left : int(right)] = True
        assert like[inside].mean() > 0.7  # the edges are blurred
        if len(found) == len(label):  # none is so far outside that it counts no more
            assert (like & ~inside).mean() < 0.01


def test_the_same_generator_gives_the_same():
    image, label = labelled(3)
    once, again = (
        BoxAugment().labelled(image, label, SPEC, np.random.default_rng(1)) for _ in range(2)
    )
    assert (once[0] == again[0]).all()
    assert once[1] == again[1]


def test_without_flip_nothing_is_mirrored():
    image, label = labelled(0)
    plain = BoxAugment(zoom=(1, 1), stretch=1, changes=0, flip=False)
    _, found = plain.labelled(image, label, SPEC, np.random.default_rng(0))
    np.testing.assert_allclose(found, label, atol=1e-9)


def test_what_can_hardly_be_seen_is_no_object_any_more():
    boxes = np.array([[0, 0.0, 0.5, 0.4, 0.4], [1, -0.1, 0.5, 0.4, 0.4], [1, 2, 2, 0.1, 0.1]])
    (kept,) = seen(boxes)
    assert kept == pytest.approx((0, 0.1, 0.5, 0.2, 0.4))
